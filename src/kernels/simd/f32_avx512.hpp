#pragma once
/// F32x16 as one AVX-512 register. Included by f32.hpp only.

// gcc 12 takes the deliberately undefined operands in its own header for mistakes (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace snug::SNUG_ISA_NS {

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};
struct Mask16 {
  __mmask16 v;
};
struct PairsX16 {
  __m512i v;
};

SNUG_INLINE F32x16 load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
SNUG_INLINE void store(float* p, F32x16 a) {
  _mm512_storeu_ps(p, a.v);
}
SNUG_INLINE F32x16 zero() {
  return {_mm512_setzero_ps()};
}
SNUG_INLINE F32x16 set1(float x) {
  return {_mm512_set1_ps(x)};
}

SNUG_INLINE Mask16 lane_range(std::size_t begin, std::size_t end) {
  const auto below = [](std::size_t n) { return n >= 16 ? 0xffffu : (1u << n) - 1u; };
  return {static_cast<__mmask16>(below(end) & ~below(begin))};
}
SNUG_INLINE F32x16 load_n(const float* p, std::size_t n, F32x16 fill = {_mm512_setzero_ps()}) {
  return {_mm512_mask_loadu_ps(fill.v, lane_range(0, n).v, p)};
}
SNUG_INLINE void store_n(float* p, std::size_t n, F32x16 a) {
  _mm512_mask_storeu_ps(p, lane_range(0, n).v, a.v);
}

SNUG_INLINE F32x16 add(F32x16 a, F32x16 b) {
  return {_mm512_add_ps(a.v, b.v)};
}
SNUG_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
SNUG_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
SNUG_INLINE F32x16 div(F32x16 a, F32x16 b) {
  return {_mm512_div_ps(a.v, b.v)};
}
SNUG_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
SNUG_INLINE F32x16 max(F32x16 a, F32x16 b) {
  return {_mm512_max_ps(a.v, b.v)};
}
SNUG_INLINE F32x16 min(F32x16 a, F32x16 b) {
  return {_mm512_min_ps(a.v, b.v)};
}
SNUG_INLINE F32x16 sqrt(F32x16 a) {
  return {_mm512_sqrt_ps(a.v)};
}
SNUG_INLINE F32x16 abs(F32x16 a) {
  return {_mm512_abs_ps(a.v)};
}
SNUG_INLINE F32x16 round(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
SNUG_INLINE F32x16 scale2(F32x16 a, F32x16 n) {
  return {_mm512_scalef_ps(a.v, n.v)};
}

SNUG_INLINE Mask16 less(F32x16 a, F32x16 b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
SNUG_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
  return {_mm512_mask_blend_ps(m.v, b.v, a.v)};
}

SNUG_INLINE float hsum(F32x16 a) {
  const __m256 a8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
  const __m128 a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
  return _mm_cvtss_f32(_mm_add_ss(a2, _mm_movehdup_ps(a2)));
}
SNUG_INLINE float hmax(F32x16 a) {
  const __m256 a8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 a4 = _mm_max_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
  const __m128 a2 = _mm_max_ps(a4, _mm_movehl_ps(a4, a4));
  return _mm_cvtss_f32(_mm_max_ss(a2, _mm_movehdup_ps(a2)));
}

/// out[i] = hsum(v[i]) for i < n <= 16, in the same order; writes 16 floats.
SNUG_INLINE void hsum_each(const F32x16* v, std::size_t n, float* out) {
  const auto at = [&](std::size_t i) { return i < n ? v[i].v : _mm512_setzero_ps(); };
  // Halves of two vectors become one, then quarters of four.
  const auto fold = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  };
  __m512 quad[4];
  for (std::size_t i = 0; i < 4; ++i) {
    if (4 * i >= n) {
      quad[i] = _mm512_setzero_ps();
      continue;
    }
    const __m512 a = fold(at(4 * i), at(4 * i + 1)), b = fold(at(4 * i + 2), at(4 * i + 3));
    quad[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  // Within the four lanes of each.
  const auto pairs = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  };
  const __m512 low = pairs(quad[0], quad[1]), high = pairs(quad[2], quad[3]);
  const __m512 sums = _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x88), _mm512_shuffle_ps(low, high, 0xdd));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_ps(out, _mm512_permutexvar_ps(order, sums));
}

SNUG_INLINE I32x16 load_i32(const std::int32_t* p) {
  return {_mm512_loadu_si512(p)};
}
SNUG_INLINE void store_i32(std::int32_t* p, I32x16 a) {
  _mm512_storeu_si512(p, a.v);
}
SNUG_INLINE I32x16 set1_i32(std::int32_t x) {
  return {_mm512_set1_epi32(x)};
}
SNUG_INLINE I32x16 add_i32(I32x16 a, I32x16 b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
SNUG_INLINE F32x16 to_f32(I32x16 a) {
  return {_mm512_cvtepi32_ps(a.v)};
}
SNUG_INLINE I32x16 to_i32(F32x16 a) {
  return {_mm512_cvtps_epi32(a.v)};
}

SNUG_INLINE F32x16 load_f16(const std::uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
SNUG_INLINE F32x16 load_bf16(const std::uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
/// Values below the smallest normal number become 0 (the hardware instruction does so).
SNUG_INLINE void store_bf16(std::uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(a.v));
}

SNUG_INLINE PairsX16 load_pairs(const std::uint16_t* p) {
  return {_mm512_loadu_si512(p)};
}
/// store_bf16() of a, then of b, and what load_pairs() would find there.
SNUG_INLINE PairsX16 store_both(std::uint16_t* p, F32x16 a, F32x16 b) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b.v, a.v);
  _mm512_storeu_si512(p, both);
  return {both};
}
SNUG_INLINE PairsX16 broadcast_pair(const std::uint16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return {_mm512_set1_epi32(pair)};
}
SNUG_INLINE F32x16 dot_pairs(F32x16 acc, PairsX16 a, PairsX16 b) {
  return {_mm512_dpbf16_ps(acc.v, (__m512bh)a.v, (__m512bh)b.v)};
}

}  // namespace snug::SNUG_ISA_NS
