#pragma once
/// Tiles of 16 tokens of one KV head, bf16, the same layout on every instruction set (saved sessions are portable).
///   keys:   [k_dim / 2][16 tokens][2 dims]   one vector of 32 values = a pair of dims of 16 tokens: scores of 16
///   tokens at once values: [16 / 2 token pairs][v_dim][2 tokens]   one vector = 16 dims of a pair of tokens
/// Unused slots hold zeros (or any finite values): their probability is 0.

#include <cstddef>

namespace snug {

inline constexpr std::size_t kTileTokens = 16;
/// Attention runs over fixed partitions of this many positions, merged in order.
inline constexpr std::size_t kPartTokens = 256;
/// Codecs work on pages of this many.
inline constexpr std::size_t kPageTokens = 64, kPageTiles = kPageTokens / kTileTokens;
inline constexpr std::size_t kMostHeadDim = 1024;

constexpr std::size_t kv_tile_values(std::size_t dim) {
  return kTileTokens * dim;
}
constexpr std::size_t key_index(std::size_t token, std::size_t dim) {
  return (dim / 2 * kTileTokens + token) * 2 + dim % 2;
}
constexpr std::size_t value_index(std::size_t token, std::size_t dim, std::size_t v_dim) {
  return (token / 2 * v_dim + dim) * 2 + token % 2;
}

}  // namespace snug
