// A product of low rank added to the tiles of a page (layout: kernels/kv_codes.hpp).

#include "kernels/kv_codes.hpp"
#include "kernels/simd/f32.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

void add_low_rank_kv(const float* lines, const float* positions, std::size_t rank, const KvCodes& codes,
                     bf16_t* tiles) {
  F32x16 line[kMostKvRank];
  for (std::size_t p = 0; p < codes.depth / 2; ++p, lines += 2 * rank) {
    for (std::size_t r = 0; r < rank; ++r) {
      alignas(64) float lanes[16];
      for (std::size_t i = 0; i < 16; ++i) lanes[i] = lines[2 * r + i % 2];
      line[r] = load(lanes);
    }
    for (std::size_t half = 0; half < 2 * codes.columns; ++half) {
      bf16_t* at = tiles + p * codes.pair_stride + half / 2 * codes.column_stride + half % 2 * 16;
      F32x16 x = load_bf16(at);
      for (std::size_t r = 0; r < rank; ++r) x = fma(line[r], load(positions + (r * 2 * codes.columns + half) * 16), x);
      store_bf16(at, x);
    }
  }
}

}  // namespace snug::SNUG_ISA_NS
