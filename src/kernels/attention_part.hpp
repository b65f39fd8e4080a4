#pragma once
/// What the attention kernels work on. Apart from kernels.hpp: products do not depend on it.

#include <cstddef>

#include "kernels/kernels.hpp"
#include "kernels/kv_codes.hpp"
#include "kernels/kv_tile.hpp"

namespace snug {

/// One KV head's keys and values for up to 256 tokens, as bf16 tiles of 16 tokens (layout: kv_tile.hpp).
struct AttentionPart {
  /// Tiles before the first and after the last one that some query sees may be null.
  const bf16_t* const* k_tiles = nullptr;
  const bf16_t* const* v_tiles = nullptr;
  std::size_t tiles = 0;             ///< <= 16
  std::size_t k_dim = 0, v_dim = 0;  ///< multiples of 16
  /// Pages (of four tiles) that are multiplied as integers in place of their tiles; null: tiles. Those that a query
  /// sees are consecutive.
  const KvCodes *k_codes = nullptr, *v_codes = nullptr;
  const std::byte *k_pages[kPartTokens / kCodedPageTokens] = {}, *v_pages[kPartTokens / kCodedPageTokens] = {};
  /// How much more the keys of a page scatter than those that they stand for, f32[k_dim], differences of variances.
  /// Half of what that adds to the variance of a score is taken off: as much as it adds to the mean of exp(score).
  /// Null: not known. Pages that are multiplied as integers have theirs from their scales (KvCodes::excess).
  const float* k_excess[kPartTokens / kCodedPageTokens] = {};
  std::uint32_t k_exact = 0;  ///< a bit of each tile: 1 when it has no excess all the same
  /// A hint: key tiles of the part that this thread goes on with. They are prefetched while memory would be idle.
  const bf16_t* const* next_keys = nullptr;
  std::size_t next_tiles = 0;
  const std::byte* next_page = nullptr;  ///< the same of coded keys
  /// Of each query and tile, when not null: the sum of its tokens' weights, relative to AttentionState::max.
  float* tile_sums = nullptr;  ///< f32[m][kPartTokens / kTileTokens], written
};

/// Running result of softmax attention for one query: exp-sums relative to `max`, merged over parts in order.
struct AttentionState {
  float max, sum;
};

}  // namespace snug
