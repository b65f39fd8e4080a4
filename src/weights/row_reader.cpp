#include "weights/row_reader.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace snug {

RowReader::RowReader(Ledger& ledger, std::size_t most_bytes)
    : slot_(FileRange::blocks_bytes(most_bytes)),
      memory_(ledger, Tag::weights, memory_bytes(most_bytes)),
      reader_(AsyncReader::create(kDepth)) {}

void RowReader::read(const StoredTensor& tensor, std::span<const RowUse> uses) {
  sorted_.assign(uses.begin(), uses.end());
  std::sort(sorted_.begin(), sorted_.end(), [](const RowUse& a, const RowUse& b) { return a.row < b.row; });
  struct Read {
    FileRange range;
    std::size_t begin = 0, end = 0;  ///< of sorted_
  };
  std::array<Read, kDepth> reads;
  std::size_t next = 0;
  std::string error;
  const auto submit = [&](std::size_t slot) {
    if (next == sorted_.size() || !error.empty()) return;
    Read& read = reads[slot];
    read.range = tensor.range_of_row(sorted_[next].row);
    read.begin = next;
    while (next < sorted_.size() && tensor.range_of_row(sorted_[next].row).offset == read.range.offset) ++next;
    read.end = next;
    const FileRange wide = read.range.whole_blocks();
    reader_->submit({wide.file, wide.offset, {memory_.data() + slot * slot_, wide.size}, slot});
  };
  for (std::size_t slot = 0; slot < kDepth; ++slot) submit(slot);
  while (reader_->in_flight() > 0)
    for (const ReadResult& result : reader_->wait()) {
      if (!result.error.empty()) error = result.error;
      const Read& read = reads[result.tag];
      const std::byte* data =
          memory_.data() + result.tag * slot_ + (read.range.offset - read.range.whole_blocks().offset);
      for (std::size_t i = read.begin; error.empty() && i < read.end; ++i)
        tensor.unpack_row(data, sorted_[i].row, sorted_[i].out);
      submit(result.tag);
    }
  if (!error.empty()) fail<IoError>("{}", error);
}

}  // namespace snug
