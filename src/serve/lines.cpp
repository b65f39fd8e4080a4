#include "serve/lines.hpp"

namespace snug {

void for_each_line(const RandomAccessFile& file, std::size_t most, const std::function<bool(const Line&)>& f) {
  const Bytes all = file.size();
  std::string block;
  Line line;
  for (Bytes at = 0; at < all;) {
    block.resize(static_cast<std::size_t>(std::min<Bytes>(kMiB, all - at)));
    file.read(at, std::as_writable_bytes(std::span(block)));
    for (std::size_t begin = 0; begin < block.size();) {
      const std::size_t end = std::min(block.find('\n', begin), block.size());
      line.text.append(block, begin, std::min(end - begin, most - line.text.size()));
      line.size += end - begin;
      begin = end + 1;
      if (end == block.size()) break;
      line.ended = true;
      if (!f(line)) return;
      line = {};
      line.offset = at + begin;
    }
    at += block.size();
  }
  if (line.size > 0) f(line);
}

}  // namespace snug
