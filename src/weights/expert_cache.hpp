#pragma once
/// Experts in memory as far as the budget goes (EdgeMoE, arXiv 2308.14352): an expert is there whole or not at all.
/// What the router chose and is missing is read, several reads at once: from a pack into its place, else into staging
/// buffers, from which the pool packs it. The forward pass takes the experts in the order in which they come. What
/// leaves is the policy's choice.

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"
#include "base/thread_pool.hpp"
#include "weights/expert_policy.hpp"
#include "weights/stored_tensor.hpp"

namespace snug {

/// The matrices of one layer of which an expert takes its part (gate, up, down; or the first two in one).
struct ExpertSet {
  std::vector<const StoredTensor*> parts;

  /// Where a part begins in an expert's memory; of parts.size(): the expert's size.
  std::size_t part_offset(std::size_t part) const;
  std::size_t bytes() const { return part_offset(parts.size()); }
  /// Whether an expert lies in the file as it lies in memory.
  bool direct() const;
};

struct ExpertStats {
  std::uint64_t hits = 0, misses = 0;             ///< experts that were wanted and in memory, or not
  std::uint64_t preloads = 0, preloads_used = 0;  ///< read because a prediction said so (those used count as hits)
  std::uint64_t bytes_read = 0;
  double hit_ratio() const {
    return hits + misses ? static_cast<double>(hits) / static_cast<double>(hits + misses) : 0;
  }
};

/// want() and next() belong to one thread; give_back() may be called from any.
class ExpertCache {
public:
  struct Shape {
    Bytes staging = 0;   ///< memory for reads in flight that have to be packed
    Bytes capacity = 0;  ///< for experts
    std::string_view policy = kDefaultExpertPolicy;
  };
  /// All sets have `experts` experts. Memory is taken from the ledger as experts come. The tensors outlive the cache.
  ExpertCache(Ledger& ledger, ThreadPool& pool, std::vector<ExpertSet> sets, std::size_t experts, const Shape& shape);
  ~ExpertCache();

  /// What of `free` bytes is well spent on reads in flight, and what a cache gets by with at least.
  static Bytes staging_bytes(std::span<const ExpertSet> sets, Bytes free);
  static Bytes least_bytes(std::span<const ExpertSet> sets);

  /// Begins to read what of the chosen experts is missing. REQUIRES: next() has returned none since the last call.
  void want(std::uint32_t set, const ExpertUses& uses);
  /// Wanted experts that are in memory now and stay there until the next call; waits for at least one. Empty: all were
  /// given. Throws IoError (nothing is wanted then), OutOfBudget.
  std::vector<std::uint32_t> next();
  /// Reads the first few of these that are missing in advance, while nothing that is wanted waits.
  void expect(std::uint32_t set, std::span<const std::uint32_t> experts);

  /// An expert's part. REQUIRES: next() has given it and was not called since.
  const std::byte* find(std::uint32_t set, std::uint32_t expert, std::size_t part) const;

  Bytes give_back(Bytes wanted);
  /// Evicts down to it; never below least_bytes() without staging.
  void set_capacity(Bytes capacity);
  /// Memory now, staging included.
  Bytes bytes() const;
  Bytes staging() const { return staging_memory_.size(); }
  ExpertStats stats() const;

private:
  enum class State : std::uint8_t { absent, reading, ready };
  struct Expert {
    Buffer memory;
    State state = State::absent;
    bool wanted = false, given = false, preloaded = false, submitted = false;
    std::uint32_t missing = 0;  ///< pieces
  };
  /// What is read of an expert at once: `range` of the file, to be packed to `offset` of its memory; or to be read
  /// there.
  struct Piece {
    std::uint32_t set, expert;
    std::size_t part;
    FileRange range;
    std::size_t offset;
  };
  struct Read {
    std::byte* staging = nullptr;
    Piece piece{};
    FileRange blocks;
  };

  Expert& at(std::uint32_t set, std::uint32_t expert) { return experts_[set * expert_count_ + expert]; }
  void admit();
  bool start_reading(std::uint32_t set, std::uint32_t expert, std::deque<Piece>& queue);
  std::optional<Buffer> make_room(std::size_t bytes);
  Buffer evict_one();
  Buffer drop(Expert& expert);
  void submit();
  void collect();
  void pack(std::span<const std::size_t> reads);
  void abandon();

  Ledger& ledger_;
  ThreadPool& pool_;
  std::vector<ExpertSet> sets_;
  std::size_t expert_count_;
  Bytes capacity_, held_ = 0;
  std::vector<Expert> experts_;
  std::unique_ptr<ExpertPolicy> policy_;
  std::uint32_t set_ = 0;              ///< of what is wanted
  std::deque<std::uint32_t> waiting_;  ///< wanted, but no memory yet
  std::vector<std::uint32_t> ready_, given_;
  std::size_t outstanding_ = 0;  ///< wanted and not given
  std::deque<Piece> demanded_, expected_;
  Buffer staging_memory_;
  std::vector<Read> reads_;  ///< that can be in flight
  std::vector<std::size_t> free_reads_;
  std::unique_ptr<AsyncReader> reader_;
  ExpertStats stats_;
  double trust_ = 1;  ///< share of guesses that were right, of late
  std::uint32_t not_tried_ = 0;
  mutable std::recursive_mutex mutex_;  ///< the ledger may ask for bytes back while the cache itself reserves some
};

}  // namespace snug
