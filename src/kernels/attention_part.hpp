#pragma once
/// What the attention kernels work on. Apart from kernels.hpp: products do not depend on it.

#include <cstddef>

#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"

namespace snug {

/// Queries that meet a tile together.
inline constexpr std::size_t kAttentionBlock = 12;

/// What is likely to be read next: fetched while the tiles at hand are multiplied.
struct KvAhead {
  const std::byte* at = nullptr;
  std::size_t bytes = 0;
};

/// One KV head's keys and values for up to 256 tokens, as bf16 tiles of 16 tokens (layout: kv_tile.hpp).
struct AttentionPart {
  /// Tiles before the first and after the last one that some query sees may be null.
  const bf16_t* const* k_tiles = nullptr;
  const bf16_t* const* v_tiles = nullptr;
  std::size_t tiles = 0;             ///< <= 16
  std::size_t k_dim = 0, v_dim = 0;  ///< multiples of 16, <= kMostHeadDim
  /// Pages (a bit of each) whose tiles hold nothing yet: attend() has them decoded to where k_tiles and
  /// v_tiles point, each when its turn comes. Of up to kAttentionBlock queries a page's tiles are done with before
  /// the next page is decoded, so that all may share one place that stays in the L1 cache. With a page's keys comes its
  /// excess.
  std::uint32_t k_coded = 0, v_coded = 0;
  KvAhead (*decode)(const void* source, bool keys, std::size_t page) = nullptr;
  const void* source = nullptr;
  /// How much more the keys of a tile scatter than those that they stand for, bf16[k_dim], differences of variances.
  /// Half of what that adds to the variance of a score is taken off: as much as it adds to the mean of exp(score).
  /// Null: nothing.
  const bf16_t* k_excess[kPartTokens / kTileTokens] = {};
  /// A hint: key tiles of the part that this thread goes on with. They are prefetched while memory would be idle.
  const bf16_t* const* next_keys = nullptr;
  std::size_t next_tiles = 0;
  /// Of each query and tile, when not null: the sum of its tokens' weights, relative to AttentionState::max.
  float* tile_sums = nullptr;  ///< f32[m][kPartTokens / kTileTokens], written
};

/// Running result of softmax attention for one query: exp-sums relative to `max`, merged over parts in order.
struct AttentionState {
  float max, sum;
};

}  // namespace snug
