#pragma once
/// The bundles of recently used feed-forward neurons (format/ffn_file.hpp): a token's neurons are mostly those of the
/// tokens before it, so only the new ones are read ("windowing", LLM in a flash, arXiv 2312.11514). Each layer keeps
/// its own, as many as the capacity allows, and gives up the one that was not used for the longest time.

#include <memory>
#include <span>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"
#include "format/ffn_file.hpp"

namespace snug {

struct NeuronStats {
  std::uint64_t chosen = 0, hits = 0, reads = 0;
  Bytes bytes_read = 0;
  double hit_ratio() const { return chosen ? static_cast<double>(hits) / static_cast<double>(chosen) : 0; }
};

/// Belongs to one thread.
class NeuronCache {
public:
  /// A layer of n neurons is asked for at most `most(n)` of them at a time, and room for these is always there.
  /// `file` outlives the cache.
  using Most = std::size_t (*)(std::size_t neurons, float share);
  NeuronCache(Ledger& ledger, const FfnFile& file, float share, Most most, Bytes capacity);
  ~NeuronCache();

  /// Memory that a cache needs, and that it makes use of.
  static Bytes least_bytes(const FfnFile& file, float share, Most most);
  static Bytes most_bytes(const FfnFile& file);

  /// The bundles of these neurons (ascending, each once), valid until the next call for this layer. Throws IoError.
  std::span<const std::byte* const> fetch(std::size_t layer, std::span<const std::uint32_t> neurons);

  Bytes memory_bytes() const { return memory_.size() + staging_.size() + index_memory_.bytes(); }
  const NeuronStats& stats() const { return stats_; }

private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  /// Slots of a layer, in a list from the longest unused to the one used last.
  struct Layer {
    std::byte* memory = nullptr;
    std::size_t slots = 0, filled = 0;
    std::vector<std::uint32_t> slot_of;                  ///< by neuron, or kNone
    std::vector<std::uint32_t> neuron_of, older, newer;  ///< by slot
    std::uint32_t oldest = kNone, newest = kNone;
  };
  struct Read {
    FileRange range;         ///< whole blocks
    std::size_t begin, end;  ///< of missing_
    Bytes first = 0;         ///< where the bundle of missing_[begin] lies in the file
  };

  static Bytes fixed_bytes(const FfnFile& file);
  void unlink(Layer& layer, std::uint32_t slot);
  void append(Layer& layer, std::uint32_t slot);
  std::uint32_t take_slot(Layer& layer);
  void plan_reads(std::size_t layer);
  void read_missing(std::size_t layer);
  void place(Layer& layer, const Read& read, const std::byte* data);

  const FfnFile& file_;
  std::size_t bundle_;
  Buffer memory_, staging_;
  Reservation index_memory_;
  std::size_t staging_slot_ = 0;
  std::vector<Layer> layers_;
  std::vector<std::uint32_t> missing_;
  std::vector<Read> reads_;
  std::vector<const std::byte*> found_;
  std::unique_ptr<AsyncReader> reader_;
  NeuronStats stats_;
};

}  // namespace snug
