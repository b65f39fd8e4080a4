#pragma once
/// The weights of a GGUF file: in memory as far as the budget goes, the rest read when it is asked for.
///
/// When everything fits it is one buffer, packed on arrival. Else the same share of every tensor is pinned
/// (pinned_bands.hpp); a slice outside of it is read (past the page cache, ahead of use) and packed into a slot that
/// its lease holds. Experts are kept whole, as many as memory is left for (expert_cache.hpp). Experts first, then bands
/// are given back when the ledger is asked for more.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/buffer.hpp"
#include "base/thread_pool.hpp"
#include "format/gguf.hpp"
#include "format/pack.hpp"
#include "weights/expert_cache.hpp"
#include "weights/pack_writer.hpp"
#include "weights/pinned_bands.hpp"
#include "weights/read_ahead.hpp"
#include "weights/row_reader.hpp"
#include "weights/weight_source.hpp"

namespace snug {

/// How weights lie in a budget.
struct WeightPlan {
  Bytes total = 0;          ///< of all weights in memory
  bool whole = false;       ///< all are there, in one piece that is never given back; or:
  std::size_t bands = 0;    ///< pinned of every tensor that is not of experts,
  Bytes pinned = 0;         ///< which is so much,
  Bytes buffers = 0;        ///< memory for what is read,
  Bytes staging = 0;        ///< of which so much for experts,
  Bytes experts = 0;        ///< and memory for experts
  double expert_share = 0;  ///< of all experts, that these are
  /// In the file: to be read for each pass, and all experts.
  Bytes streamed = 0, expert_file_bytes = 0;
  /// What passes multiply with: bytes in memory and numbers of values, of ordinary matrices and of all experts.
  Bytes multiplied = 0, multiplied_experts = 0;
  std::uint64_t values = 0, expert_values = 0;
  bool packed = false;  ///< what is read need not be rearranged
  Bytes memory() const { return pinned + buffers + experts; }
};

class FileSource final : public WeightSource {
public:
  /// Slices will be of at most `slice_groups` groups.
  FileSource(Ledger& ledger, ThreadPool& pool, std::size_t slice_groups)
      : ledger_(ledger), pool_(pool), step_(slice_groups), bands_(ledger, pool, slice_groups) {}

  /// Announces a tensor of shape [cols, rows] or [cols, rows, experts]. `as_f32` dequantises it on arrival.
  /// Throws FormatError when the kernels cannot multiply its type. REQUIRES: before load().
  Weight add(const GgufFile& file, const GgufTensor& tensor, bool as_f32 = false);
  /// Rows of this weight are looked up. If that is all, a budget that is short spends nothing on it.
  void looked_up(const Weight& weight, bool only) {
    entries_[weight.id].looked_up = true;
    entries_[weight.id].only_rows = only;
  }
  /// This weight is hardly ever used: nothing of it is kept, unless everything fits. prepare() must follow.
  void seldom(const Weight& weight) { entries_[weight.id].seldom = true; }
  /// These weights (one may be named twice) are the experts of one layer. Layers are announced in order.
  void experts_of_layer(std::span<const Weight> parts);
  /// REQUIRES: after the last of those above, before everything below.
  void prepare();
  /// Reads matrices from a pack instead of the model's file. REQUIRES: before load(). Throws FormatError when one of
  /// them is not there as it should be.
  void use_pack(PackFile pack);
  /// What a pack of these weights holds: all but those of which only rows are looked up.
  std::vector<PackUnit> pack_units() const;
  void set_expert_policy(std::string_view name) { policy_ = name; }
  /// Others have weights in the same ledger: these are never in one piece, so that some of them can go at any time.
  /// What they leave to others they leave to `stock` (base/page_stock.hpp; may be null). REQUIRES: before load().
  void share_memory(PageStock* stock) {
    shares_ = true;
    bands_.use_stock(stock);
  }

  /// What load() does within `limit` when `used` bytes of it are taken: `spare` bytes are left free; everything is in
  /// memory when even `most_spare` remain.
  WeightPlan plan(Bytes limit, Bytes used, Bytes spare, Bytes most_spare) const;
  /// Least memory that a streaming source gets by with.
  Bytes least_bytes() const;
  /// Reads and packs what fits into the ledger. Throws IoError, OutOfBudget.
  void load(Bytes spare, Bytes most_spare);
  /// The same again after the ledger's limit has changed: pins more, or less. What is read may go through `scratch`, as
  /// new memory would have to be cleared first. REQUIRES: no slice is held.
  void refit(Bytes spare, Bytes most_spare, std::span<std::byte> scratch);
  /// Of a source that shares memory: gives up what slices are read into. Pinned weights stay, and no slice can be had
  /// until refit(). REQUIRES: no slice is held.
  void rest();
  /// Lets weights go, until as many bytes are released or there are none. Returns how many were. REQUIRES: it rests, or
  /// streams.
  Bytes give_back(Bytes wanted);
  /// What load() and refit() have reserved, and experts since.
  Bytes memory_bytes() const { return pinned_bytes() + buffer_bytes_ + (cache_ ? cache_->bytes() : 0); }

  WeightSlice slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                    std::size_t group_end) override;
  Bytes ahead_bytes() const override { return read_ahead_ ? read_ahead_->memory_bytes() : 0; }
  void rows(const Weight& weight, std::span<const RowUse> uses) override;
  bool caches_experts() const override { return cache_ != nullptr; }
  void want_experts(const Weight& part, const ExpertUses& uses) override;
  std::vector<std::uint32_t> next_experts() override;
  void expect_experts(const Weight& part, std::span<const std::uint32_t> experts) override;
  StreamStats stream_stats() const { return read_ahead_ ? read_ahead_->stats() : StreamStats(); }
  ExpertStats expert_stats() const { return cache_ ? cache_->stats() : ExpertStats(); }

  /// Throws IoError when a file that weights are read from is not what it was.
  void check_files() const;

  /// Of the files: pinned weights that were read so far.
  Bytes bytes_pinned() const { return bytes_read_; }
  /// Bytes of all weights, and of those that are pinned.
  Bytes total_bytes() const { return bytes_; }
  Bytes pinned_bytes() const;

private:
  struct Entry {
    StoredTensor stored;
    std::size_t extent_groups = 0;  ///< that the disk is asked for at once
    bool looked_up = false, only_rows = false, seldom = false;
    std::size_t offset = 0;  ///< in whole_
    std::int32_t set = -1;   ///< of experts
    std::size_t part = 0;    ///< within it
    bool banded() const { return !only_rows && set < 0; }
  };

  /// Memory of a streaming source beside what is pinned.
  struct Buffers {
    std::size_t packed = 0, raw = 0;  ///< bytes of a slot: of a slice that is multiplied, of an extent as in the file
    std::size_t ahead = 0;            ///< slots of the second kind
    Bytes bytes = 0;
  };
  Buffers plan_buffers(Bytes free) const;
  /// Of the file, that a row which is looked up takes at most.
  std::size_t most_row_bytes() const;
  Bytes row_reader_bytes() const { return RowReader::memory_bytes(most_row_bytes()); }
  std::vector<ExpertSet> expert_sets() const;
  void set_extent(Entry& entry) const;
  std::size_t pinned_groups(const Entry& entry, std::size_t bands) const {
    return entry.seldom ? 0 : bands_.pinned_groups(entry.stored, bands);
  }
  void settle(const WeightPlan& lying, std::span<std::byte> scratch);
  void load_whole();
  void start_streaming(Bytes free);
  void foresee_order();
  void stop_streaming();
  void open_direct();
  /// What is read from the disk with groups [begin, end): those around them that are not pinned.
  FileRange extent_of(const Entry& entry, std::size_t begin, std::size_t end) const;
  /// Where groups lie in memory; null when they do not.
  const std::byte* find(const Entry& entry, std::size_t begin, std::size_t end) const;
  /// Memory for a packed slice; waits until some is free.
  std::shared_ptr<std::byte> take_slot();

  Ledger& ledger_;
  ThreadPool& pool_;
  std::size_t step_;
  std::string policy_{kDefaultExpertPolicy};
  bool shares_ = false, rests_ = false;
  Bytes bytes_read_ = 0;
  std::vector<Entry> entries_;
  std::vector<std::vector<std::uint32_t>> sets_;  ///< of experts: entries
  Bytes bytes_ = 0;
  Buffer whole_;  ///< all of it, or
  PinnedBands bands_;
  std::unique_ptr<ExpertCache> cache_;
  std::vector<std::uint32_t> all_wanted_;  ///< experts to be given when there is no cache
  std::optional<PackFile> pack_;
  std::vector<std::unique_ptr<RandomAccessFile>> direct_;
  Buffer slot_memory_;
  Bytes buffer_bytes_ = 0;  ///< of everything here that is read into, but experts
  std::mutex mutex_;
  std::condition_variable slot_free_;
  std::vector<std::byte*> free_slots_;
  std::unique_ptr<ReadAhead> read_ahead_;
  std::unique_ptr<RowReader> row_reader_;
  std::shared_ptr<void> holder_;
};

}  // namespace snug
