// Pages of low rank to bf16 tiles (layout: kernels/kv_low_rank.hpp).

#include "kernels/kv_low_rank.hpp"

#include "kernels/kv_lines.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

constexpr std::size_t kRows = 16;  ///< whose sums stay in registers

}  // namespace

void multiply_low_rank_kv(const KvLowRank& p, const KvLines& l, bf16_t* tiles) {
  for (std::size_t v = 0; v < l.vectors; ++v) {
    const F32x16 scale = load(p.lane_scale + 16 * v);
    const F32x16 offset = p.lane_offset != nullptr ? load(p.lane_offset + 16 * v) : zero();
    for (std::size_t row = 0; row < 2 * l.pairs; row += kRows) {
      I32x16 sums[kRows];
      SNUG_UNROLL(16)
      for (std::size_t i = 0; i < kRows; ++i)  // unsigned: sums of a damaged page may be anything
        sums[i] = set1_i32(
            kBiasSigned ? static_cast<std::int32_t>(-128u * static_cast<std::uint32_t>(p.row_sums[row + i])) : 0);
      const std::int8_t* a = p.rows + row * p.rank;
      const std::int8_t* lanes = p.lanes + v * 16 * p.rank;
      for (std::size_t r = 0; r < p.rank; r += 4, lanes += 64) {
        const U32x16 w = ready_signed(load_u32(lanes));
        SNUG_UNROLL(16)
        for (std::size_t i = 0; i < kRows; ++i) sums[i] = dot_signed_in_place(sums[i], w, a + i * p.rank + r);
      }
      bf16_t* out = tiles + v * l.vector_stride + row / 2 * l.pair_stride;
      SNUG_UNROLL(8)
      for (std::size_t i = 0; i < kRows; i += 2, out += l.pair_stride) {
        F32x16 value[2];
        for (std::size_t j = 0; j < 2; ++j) {
          const F32x16 factor = mul(scale, set1(p.row_scale[row + i + j]));
          value[j] = fma(to_f32(sums[i + j]), factor, offset);
          if (p.row_offset != nullptr) value[j] = add(value[j], set1(p.row_offset[row + i + j]));
        }
        store_pairs(out, value[0], value[1]);
      }
    }
  }
}

}  // namespace snug::SNUG_ISA_NS
