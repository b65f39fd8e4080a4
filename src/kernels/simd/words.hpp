#pragma once
/// Vectors of 32 words of 16 bits: 16 lanes of two.

#include "kernels/simd/bytes.hpp"

namespace snug::SNUG_ISA_NS {

typedef std::uint16_t U16x32 __attribute__((vector_size(64)));

SNUG_INLINE U16x32 splat_word(unsigned word) {
  return U16x32{} + static_cast<std::uint16_t>(word);
}

/// acc[lane] += w[2 lane] * x[0] + w[2 lane + 1] * x[1].
SNUG_INLINE I32x16 dot_words(I32x16 acc, U16x32 w, const std::int16_t* x) {
  std::int32_t pair;
  std::memcpy(&pair, x, sizeof pair);
#if defined(SNUG_ISA_avx512)
  return {_mm512_dpwssd_epi32(acc.v, reinterpret_cast<__m512i>(w), _mm512_set1_epi32(pair))};
#elif defined(SNUG_ISA_avx2)
  const __m256i two = _mm256_set1_epi32(pair);
  __m256i half[2], sum[2];
  std::memcpy(half, &w, sizeof half);
  std::memcpy(sum, &acc, sizeof sum);
  for (int i = 0; i < 2; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(half[i], two));
  std::memcpy(&acc, sum, sizeof sum);
  return acc;
#elif defined(SNUG_ISA_neon)
  const int16x8_t two = vreinterpretq_s16_s32(vdupq_n_s32(pair));
  int16x8_t part[4];
  int32x4_t sum[4];
  std::memcpy(part, &w, sizeof part);
  std::memcpy(sum, &acc, sizeof sum);
  for (int i = 0; i < 4; ++i)
    sum[i] = vaddq_s32(sum[i], vpaddq_s32(vmull_s16(vget_low_s16(part[i]), vget_low_s16(two)),
                                          vmull_s16(vget_high_s16(part[i]), vget_high_s16(two))));
  std::memcpy(&acc, sum, sizeof sum);
  return acc;
#else
  std::int16_t words[32];
  std::int32_t sum[16];
  std::memcpy(words, &w, sizeof words);
  std::memcpy(sum, &acc, sizeof sum);
  for (int lane = 0; lane < 16; ++lane) sum[lane] += words[2 * lane] * x[0] + words[2 * lane + 1] * x[1];
  std::memcpy(&acc, sum, sizeof sum);
  return acc;
#endif
}

/// Values in [-32768, 32767] as words.
SNUG_INLINE void store_i16(std::int16_t* p, I32x16 v) {
#if defined(SNUG_ISA_avx512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v.v));
#else
  std::int32_t words[16];
  std::memcpy(words, &v, sizeof words);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<std::int16_t>(words[i]);
#endif
}

/// Words 0..15 (half 0) or 16..31 (half 1) as lanes.
SNUG_INLINE U32x16 half_words(const U16x32& w, std::size_t half) {
  U16x16 part;
  std::memcpy(&part, reinterpret_cast<const std::uint16_t*>(&w) + 16 * half, sizeof part);
  return widen(part);
}

}  // namespace snug::SNUG_ISA_NS
