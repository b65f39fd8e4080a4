#pragma once
/// One head's page of tiles as rows, f32[64 tokens][dim], for codecs that work token by token.

#include "kv/kv_codec.hpp"

namespace snug {

inline std::size_t tile_index(KvSide side, std::size_t token, std::size_t d, std::size_t dim) {
  const std::size_t tile = token / kTileTokens * kv_tile_values(dim), in_tile = token % kTileTokens;
  return tile + (side == KvSide::keys ? key_index(in_tile, d) : value_index(in_tile, d, dim));
}

inline void rows_of_tiles(KvSide side, const bf16_t* tiles, std::size_t dim, float* rows) {
  for (std::size_t t = 0; t < kPageTokens; ++t)
    for (std::size_t d = 0; d < dim; ++d) rows[t * dim + d] = float_of(tiles[tile_index(side, t, d, dim)]);
}

inline void store_row(KvSide side, const float* row, std::size_t token, std::size_t dim, bf16_t* tiles) {
  const auto store = side == KvSide::keys ? kernels().store_key : kernels().store_value;
  store(row, dim, token % kTileTokens, tiles + token / kTileTokens * kv_tile_values(dim));
}

inline void tiles_of_rows(KvSide side, const float* rows, std::size_t dim, bf16_t* tiles) {
  for (std::size_t t = 0; t < kPageTokens; ++t) store_row(side, rows + t * dim, t, dim, tiles);
}

}  // namespace snug
