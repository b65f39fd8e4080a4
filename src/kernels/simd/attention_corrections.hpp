#pragma once
/// What pages of codes have beside their codes (KvCodes::rank and outliers), in the two products of attention: a
/// product of low rank is multiplied factor by factor, an outlier adds to one column.

#include "kernels/attention_scratch.hpp"
#include "kernels/kv_codes.hpp"
#include "kernels/simd/bytes.hpp"

namespace snug::SNUG_ISA_NS {

typedef std::int8_t S8x16 __attribute__((vector_size(16)));
typedef std::int32_t S32x16 __attribute__((vector_size(64)));

SNUG_INLINE F32x16 load_int8(const std::byte* p) {
  const S32x16 wide = __builtin_convertvector(load_vector<S8x16>(p), S32x16);
  I32x16 out;
  __builtin_memcpy(&out, &wide, sizeof out);
  return to_f32(out);
}

/// out[q][position] += what the lines [line, line + depth) of the page's corrections give for x[q].
inline void add_corrections(const std::byte* page, const KvCodes& codes, std::size_t line, std::size_t depth,
                            const float* x, std::size_t x_stride, std::size_t count, float* out,
                            std::size_t out_stride) {
  const auto* scales = reinterpret_cast<const bf16_t*>(page + codes.factor_scales());
  const std::byte* factors = page + codes.factors();
  float weight[kAttentionBlock];
  for (std::size_t r = 0; r < codes.rank; ++r) {
    const std::byte* lines = factors + r * codes.depth + line;
    F32x16 sums[kAttentionBlock];
    for (std::size_t q = 0; q < count; ++q) sums[q] = zero();
    for (std::size_t i = 0; i < depth; i += 16) {
      const F32x16 factor = load_int8(lines + i);
      for (std::size_t q = 0; q < count; ++q) sums[q] = fma(load(x + q * x_stride + i), factor, sums[q]);
    }
    const float scale = widen_bf16(scales[r]) * widen_bf16(scales[codes.rank + r]);
    for (std::size_t q = 0; q < count; ++q) weight[q] = hsum(sums[q]) * scale;
    const std::byte* positions = factors + codes.rank * codes.depth + r * codes.positions();
    for (std::size_t i = 0; i < codes.positions(); i += 16) {
      const F32x16 factor = load_int8(positions + i);
      for (std::size_t q = 0; q < count; ++q) {
        float* to = out + q * out_stride + i;
        store(to, fma(set1(weight[q]), factor, load(to)));
      }
    }
  }
  const std::size_t first = line * codes.outliers;
  const auto* values = reinterpret_cast<const bf16_t*>(page + codes.outlier_values()) + first;
  const std::byte* places = page + codes.outlier_places() + first * codes.place_bytes();
  for (std::size_t l = 0; l < depth; ++l)
    for (std::size_t k = 0; k < codes.outliers; ++k, ++values, places += codes.place_bytes()) {
      const std::size_t at = codes.place(places);
      if (at >= codes.positions()) continue;  // a damaged page must not lead elsewhere
      const float value = widen_bf16(*values);
      for (std::size_t q = 0; q < count; ++q) out[q * out_stride + at] += x[q * x_stride + l] * value;
    }
}

}  // namespace snug::SNUG_ISA_NS
