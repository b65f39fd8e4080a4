#pragma once
/// Vectors of 32 words of 16 bits: 16 lanes of two.

#include "kernels/simd/bytes.hpp"

namespace snug::SNUG_ISA_NS {

typedef std::uint16_t U16x32 __attribute__((vector_size(64)));

SNUG_INLINE U16x32 splat_word(unsigned word) {
  return U16x32{} + static_cast<std::uint16_t>(word);
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

}  // namespace snug::SNUG_ISA_NS
