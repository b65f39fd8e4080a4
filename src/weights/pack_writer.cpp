#include "weights/pack_writer.hpp"

#include <algorithm>
#include <filesystem>

#include "base/error.hpp"
#include "format/hash.hpp"
#include "format/pack.hpp"

namespace snug {

namespace {

constexpr Bytes kChunkBytes = 4 * kMiB;  // packed by the pool at once, then written

using Append = std::function<void(std::span<const std::byte>)>;

void append_text(const Append& append, const std::string& text) {
  append(std::as_bytes(std::span(text)));
}

/// Places of all tensors, unit after unit, and where the last one ends.
Bytes lay_out(const std::vector<PackUnit>& units, std::vector<PackedTensor>& tensors) {
  Bytes at = kDirectBlock;
  for (const PackUnit& unit : units) {
    Bytes stride = 0;
    for (const StoredTensor* t : unit) stride = checked_add(stride, round_up(t->expert_bytes(), kDirectBlock));
    Bytes offset = at;
    for (const StoredTensor* t : unit) {
      const Weight& w = t->weight;
      tensors.push_back({t->name, w.type, w.rows, w.cols, w.experts, offset, stride, 0});
      offset += round_up(t->expert_bytes(), kDirectBlock);
    }
    at = checked_add(at, checked_mul(stride, unit.front()->weight.experts));
  }
  return at;
}

class Writer {
public:
  Writer(const Append& append, ThreadPool& pool, std::function<void(Bytes)> wrote)
      : append_(append), pool_(pool), wrote_(std::move(wrote)), packed_(kChunkBytes), raw_(pool.size()) {}

  /// One expert of a tensor, filled up to a whole block.
  void write_expert(const StoredTensor& tensor, std::size_t expert, Hash& hash) {
    const std::size_t each = tensor.group_bytes(), groups = tensor.weight.groups(), first = expert * groups;
    const std::size_t step = std::max<std::size_t>(1, kChunkBytes / each);
    packed_.resize(std::max<std::size_t>(packed_.size(), step * each));
    for (std::size_t g = 0; g < groups; g += step) {
      const std::size_t n = std::min(step, groups - g);
      pool_.parallel_for(
          n, std::max<std::size_t>(1, n / (4 * pool_.size())), [&](std::size_t from, std::size_t to, unsigned worker) {
            raw_[worker].resize((to - from) * tensor.file_group_bytes());
            tensor.read_groups(first + g + from, first + g + to, raw_[worker].data(), packed_.data() + from * each);
          });
      const std::span part(packed_.data(), n * each);
      hash.add(part);
      put(part);
    }
    static constexpr std::byte kZeros[kDirectBlock]{};
    put(std::span(kZeros).first(round_up(groups * each, kDirectBlock) - groups * each));
  }

private:
  void put(std::span<const std::byte> bytes) {
    append_(bytes);
    wrote_(bytes.size());
  }

  const Append& append_;
  ThreadPool& pool_;
  std::function<void(Bytes)> wrote_;
  std::vector<std::byte> packed_;
  std::vector<std::vector<std::byte>> raw_;
};

}  // namespace

void write_pack(const std::string& path, std::uint64_t model, const std::vector<PackUnit>& units, ThreadPool& pool,
                const std::function<void(Bytes done, Bytes all)>& progress) {
  std::vector<PackedTensor> tensors;
  const Bytes all = lay_out(units, tensors);
  remove_abandoned(path);
  std::error_code error;
  const auto folder = std::filesystem::path(path).parent_path();
  const auto space = std::filesystem::space(folder.empty() ? "." : folder, error);
  if (!error && space.available < all)
    fail<IoError>("cannot write {}: it takes {}, the disk has {} left", path, format_bytes(all),
                  format_bytes(space.available));
  write_atomically(path, [&](const Append& append) {
    Bytes done = 0;
    Writer writer(append, pool, [&](Bytes bytes) { progress(done += bytes, all); });
    append_text(append, pack_head());
    done += kDirectBlock;
    std::size_t first = 0;
    for (const PackUnit& unit : units) {
      std::vector<Hash> hashes(unit.size());
      for (std::size_t e = 0; e < unit.front()->weight.experts; ++e)
        for (std::size_t i = 0; i < unit.size(); ++i) writer.write_expert(*unit[i], e, hashes[i]);
      for (std::size_t i = 0; i < unit.size(); ++i) tensors[first + i].checksum = hashes[i].value();
      first += unit.size();
    }
    append_text(append, pack_tail(model, tensors));
  });
}

}  // namespace snug
