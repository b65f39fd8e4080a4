#pragma once
/// The weights of a GGUF file: in memory as far as the budget goes, the rest read when it is asked for.
///
/// When everything fits it is one buffer, packed on arrival. Else the groups of every tensor are cut into kBands bands,
/// and the first bands of all tensors are pinned: the same share of every layer. A slice outside of them is read (past
/// the page cache, ahead of use) and packed into a slot that its lease holds. Pinned bands are given back, last first,
/// when the ledger is asked for more.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "base/buffer.hpp"
#include "base/thread_pool.hpp"
#include "format/gguf.hpp"
#include "weights/read_ahead.hpp"
#include "weights/weight_source.hpp"

namespace snug {

/// How weights lie in a budget.
struct WeightPlan {
  Bytes total = 0;        ///< of all weights in memory
  bool whole = false;     ///< all are there, in one piece that is never given back; or:
  std::size_t bands = 0;  ///< pinned of every tensor,
  Bytes pinned = 0;       ///< which is so much,
  Bytes buffers = 0;      ///< and memory for what is read
  /// In the file, to be read for each pass: of ordinary matrices, of all experts.
  Bytes streamed = 0, streamed_experts = 0;
  /// What passes multiply with: bytes in memory and numbers of values, of ordinary matrices and of all experts.
  Bytes multiplied = 0, multiplied_experts = 0;
  std::uint64_t values = 0, expert_values = 0;
  Bytes memory() const { return pinned + buffers; }
};

class FileSource final : public WeightSource {
public:
  /// Slices will be of at most `slice_groups` groups.
  FileSource(Ledger& ledger, ThreadPool& pool, std::size_t slice_groups)
      : ledger_(ledger), pool_(pool), step_(slice_groups) {}

  /// Announces a tensor of shape [cols, rows] or [cols, rows, experts]. `as_f32` dequantises it on arrival.
  /// Throws FormatError when the kernels cannot multiply its type. REQUIRES: before load().
  Weight add(const GgufFile& file, const GgufTensor& tensor, bool as_f32 = false);
  /// This weight is only looked up by rows: a budget that is short spends nothing on it.
  void only_rows(const Weight& weight) { entries_[weight.id].only_rows = true; }
  /// What load() does within `limit` when `used` bytes of it are taken: `spare` bytes are left free; everything is in
  /// memory when even `most_spare` remain.
  WeightPlan plan(Bytes limit, Bytes used, Bytes spare, Bytes most_spare) const;
  /// Least memory that a streaming source gets by with.
  Bytes least_bytes() const { return std::min(bytes_, plan_buffers(0).bytes); }
  /// Reads and packs what fits into the ledger. Throws IoError, OutOfBudget.
  void load(Bytes spare, Bytes most_spare);
  /// The same again after the ledger's limit has changed: pins more, or less. REQUIRES: no slice is held.
  void refit(Bytes spare, Bytes most_spare);
  /// What load() and refit() have reserved.
  Bytes memory_bytes() const { return pinned_bytes() + buffer_bytes_; }

  WeightSlice slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                    std::size_t group_end) override;
  bool streams() const override { return read_ahead_ != nullptr; }
  void row(const Weight& weight, std::size_t row, float* out) override;

  /// Bytes of all weights, and of those that are in memory.
  Bytes total_bytes() const { return bytes_; }
  Bytes pinned_bytes() const;

private:
  static constexpr std::size_t kBands = 64;

  struct Entry {
    const RandomAccessFile* file = nullptr;
    DType file_type{};
    Weight weight;
    Bytes file_offset = 0;
    std::size_t extent_groups = 0;  ///< that the disk is asked for at once
    bool only_rows = false;
    std::size_t offset = 0;                ///< in whole_
    std::size_t band_offset[kBands] = {};  ///< in bands_, when only_rows is not set

    std::size_t all_groups() const { return weight.groups() * weight.experts; }
    std::size_t group_bytes() const { return kTileRows * row_bytes(weight.type, weight.cols); }
    std::size_t file_group_bytes() const { return kTileRows * row_bytes(file_type, weight.cols); }
    /// First group (over all experts) of a band; bounds are where slices begin.
    std::size_t band_begin(std::size_t band, std::size_t step) const {
      return band == kBands ? all_groups() : all_groups() * band / kBands / step * step;
    }
  };

  /// Memory of a streaming source beside what is pinned.
  struct Buffers {
    std::size_t packed = 0, raw = 0;  ///< bytes of a slot: of a slice that is multiplied, of an extent as in the file
    std::size_t ahead = 0;            ///< slots of the second kind
    Bytes bytes = 0;
  };
  Buffers plan_buffers(Bytes free) const;
  Bytes band_bytes(std::size_t band) const;
  void load_whole();
  void start_streaming(Bytes free);
  void stop_streaming();
  void pin_bands(std::size_t bands);
  void open_direct();
  /// Where groups [begin, end) (over all experts, of one expert) lie in the file.
  static ReadAhead::Range range_of(const Entry& entry, std::size_t begin, std::size_t end);
  /// What is read from the disk with groups [begin, end): those around them that are not pinned.
  ReadAhead::Range extent_of(const Entry& entry, std::size_t begin, std::size_t end) const;
  /// Rows as in the file, packed to `out`.
  static void pack(const Entry& entry, std::span<const std::byte> rows, std::byte* out);
  /// Groups [begin, end) over all experts, read now. `raw`: file_group_bytes() of each.
  static void read_groups(const Entry& entry, std::size_t begin, std::size_t end, std::byte* raw, std::byte* out);
  /// Where groups lie in memory; null when they do not.
  const std::byte* find(const Entry& entry, std::size_t begin, std::size_t end) const;
  Bytes give_back(Bytes wanted);
  /// Memory for a packed slice; waits until some is free.
  std::shared_ptr<std::byte> take_slot();

  Ledger& ledger_;
  ThreadPool& pool_;
  std::size_t step_;
  std::vector<Entry> entries_;
  Bytes bytes_ = 0;
  Buffer whole_;  ///< all of it, or
  std::vector<Buffer> bands_;
  std::vector<std::unique_ptr<RandomAccessFile>> direct_;
  Buffer slot_memory_;
  Bytes buffer_bytes_ = 0;
  std::mutex mutex_;
  std::condition_variable slot_free_;
  std::vector<std::byte*> free_slots_;
  std::unique_ptr<ReadAhead> read_ahead_;
  std::shared_ptr<void> holder_;
};

}  // namespace snug
