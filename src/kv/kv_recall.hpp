#pragma once
/// After SpeCache (arXiv 2503.16163): all pages of a sequence are coded in memory and exact on the disk. Attention over
/// the codes says which tokens matter; these are read and take the place of their codes, and stay for later tokens as
/// long as none weigh more. What comes back are tiles: 16 tokens of a head.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

/// Rows of a sequence in one call, at most, that see codes and what came back. More see all pages exactly, as they come
/// from the disk. (In a call of so many sequences that their partitions are not spread over threads, nothing new
/// comes.)
inline constexpr std::size_t kRecallRows = 1;

/// A page (`bytes`: of it, with what follows the tiles) as it lies on the disk: a head's key and value tile of the same
/// tokens side by side. `back`: from there.
void interleave_tiles(const KvShape& shape, const std::byte* page, std::byte* out, std::size_t bytes, bool back);

class KvRecall {
public:
  /// In memory of `bytes`. Layers with a window have none of it. Throws OutOfBudget.
  KvRecall(Ledger& ledger, std::span<const KvShape> shapes, Bytes bytes);
  KvRecall(const KvRecall&) = delete;
  KvRecall& operator=(const KvRecall&) = delete;

  /// Keys and values of one tile.
  static std::size_t tile_bytes(const KvShape& shape) {
    return kTileTokens * (shape.k_dim + shape.v_dim) * sizeof(bf16_t);
  }

  /// A head's tile, keys and then values; null: it did not come back.
  const bf16_t* find(std::size_t layer, std::size_t head, std::size_t tile) const;
  /// Before attention of a layer over so many tiles. Throws IoError, as wait().
  void begin(std::size_t layer, std::size_t tiles);
  /// What a partition gave to the queries of one token with one head: `states` and `tile_sums` as kernels leave them
  /// (AttentionPart). Called from many threads at once.
  void note(std::size_t layer, std::size_t head, std::size_t part, std::span<const AttentionState> states,
            const float* tile_sums);
  /// After all partitions: begins to read those of the tiles [first, end) that got more weight than what is there.
  /// `where`: a head's tile on the disk, until forget(). Returns the (head, partition) that some belong to.
  std::vector<std::pair<std::size_t, std::size_t>> choose(
      std::size_t layer, std::size_t first, std::size_t end,
      const std::function<FileRange(std::size_t head, std::size_t tile)>& where);
  /// Until what choose() began to read is there: it comes before anything else. Throws IoError when a read failed,
  /// ever.
  void wait();
  /// Pages from `pages` on are no more what they were.
  void forget(std::size_t pages) noexcept;

private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  /// Memory of one tile.
  struct Slot {
    std::byte* memory;
    std::size_t shift = 0;  ///< of the tile in it
    std::size_t layer = 0, head = 0, tile = 0;
    float weight = -1;  ///< for the newest token; less than any: free
  };
  struct Head {
    std::vector<std::uint32_t> slot_of;  ///< of each tile
    /// Of the newest token: per partition and query its maximum, and the weights of the partition's tiles.
    std::vector<float> most, sums;
  };
  /// Weight of each tile for a head's queries.
  std::vector<float> weights(const Head& head, std::size_t group) const;
  void free(Slot& slot);
  void read(Slot& slot, const FileRange& tile);
  void take_results();

  std::vector<KvShape> shapes_;
  Buffer memory_;
  std::vector<Slot> slots_;                ///< for tiles of any layer
  std::vector<std::vector<Head>> layers_;  ///< none: it does not take part
  std::string error_;                      ///< of a read
  std::unique_ptr<AsyncReader> reader_;    ///< last: it waits for its reads before their memory goes
};

}  // namespace snug
