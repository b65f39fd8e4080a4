#pragma once
/// F32x16 as two AVX2 registers. Included by f32.hpp only.

#include <immintrin.h>

namespace snug::SNUG_ISA_NS {

struct F32x16 {
  __m256 lo, hi;
};
struct I32x16 {
  __m256i lo, hi;
};
struct Mask16 {
  __m256 lo, hi;  ///< all bits of a lane set or none
};
struct PairsX16 {
  F32x16 even, odd;  ///< widened: bf16 is the upper half of f32
};

SNUG_INLINE F32x16 load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
SNUG_INLINE void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
SNUG_INLINE F32x16 zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
SNUG_INLINE F32x16 set1(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

SNUG_INLINE F32x16 load_n(const float* p, std::size_t n, F32x16 fill = {_mm256_setzero_ps(), _mm256_setzero_ps()}) {
  float lanes[16];
  store(lanes, fill);
  __builtin_memcpy(lanes, p, n * sizeof(float));
  return load(lanes);
}
SNUG_INLINE void store_n(float* p, std::size_t n, F32x16 a) {
  float lanes[16];
  store(lanes, a);
  __builtin_memcpy(p, lanes, n * sizeof(float));
}

SNUG_INLINE F32x16 add(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
SNUG_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
SNUG_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
SNUG_INLINE F32x16 div(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
SNUG_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
SNUG_INLINE F32x16 max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
SNUG_INLINE F32x16 min(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
SNUG_INLINE F32x16 sqrt(F32x16 a) {
  return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}
SNUG_INLINE F32x16 abs(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
SNUG_INLINE F32x16 round(F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
/// In two steps, so that 2^n itself may be out of range: results may be denormal or infinite.
SNUG_INLINE F32x16 scale2(F32x16 a, F32x16 n) {
  const auto half = [](__m256 x, __m256 e) {
    const __m256i i = _mm256_cvtps_epi32(e);
    const __m256i first = _mm256_srai_epi32(i, 1);
    const __m256i second = _mm256_sub_epi32(i, first);
    const __m256i bias = _mm256_set1_epi32(127);
    x = _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23)));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23)));
  };
  return {half(a.lo, n.lo), half(a.hi, n.hi)};
}

SNUG_INLINE Mask16 less(F32x16 a, F32x16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
SNUG_INLINE Mask16 lane_range(std::size_t begin, std::size_t end) {
  const __m256i b = _mm256_set1_epi32(begin > 16 ? 16 : static_cast<int>(begin));
  const __m256i e = _mm256_set1_epi32(end > 16 ? 16 : static_cast<int>(end));
  const auto half = [&](__m256i lane) {
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(b, lane), _mm256_cmpgt_epi32(e, lane)));
  };
  return {half(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), half(_mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
SNUG_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}

SNUG_INLINE float hsum(F32x16 a) {
  const __m256 a8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
  const __m128 a2 = _mm_add_ps(a4, _mm_movehl_ps(a4, a4));
  return _mm_cvtss_f32(_mm_add_ss(a2, _mm_movehdup_ps(a2)));
}
SNUG_INLINE float hmax(F32x16 a) {
  const __m256 a8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 a4 = _mm_max_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
  const __m128 a2 = _mm_max_ps(a4, _mm_movehl_ps(a4, a4));
  return _mm_cvtss_f32(_mm_max_ss(a2, _mm_movehdup_ps(a2)));
}

SNUG_INLINE I32x16 load_i32(const std::int32_t* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
SNUG_INLINE void store_i32(std::int32_t* p, I32x16 a) {
  auto* q = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(q, a.lo);
  _mm256_storeu_si256(q + 1, a.hi);
}
SNUG_INLINE I32x16 set1_i32(std::int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
SNUG_INLINE I32x16 add_i32(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
SNUG_INLINE F32x16 to_f32(I32x16 a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
SNUG_INLINE I32x16 to_i32(F32x16 a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}

SNUG_INLINE F32x16 load_f16(const std::uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
SNUG_INLINE F32x16 load_bf16(const std::uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  const auto half = [](__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); };
  return {half(_mm_loadu_si128(q)), half(_mm_loadu_si128(q + 1))};
}
SNUG_INLINE void store_bf16(std::uint16_t* p, F32x16 a) {
  const auto half = [](__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, _mm256_castps_si256(is_nan)), 16);
  };
  const __m256i packed = _mm256_packus_epi32(half(a.lo), half(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

SNUG_INLINE PairsX16 widen_pairs(__m256i lo, __m256i hi) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(lo, upper)), _mm256_castsi256_ps(_mm256_and_si256(hi, upper))}};
}
SNUG_INLINE PairsX16 load_pairs(const std::uint16_t* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return widen_pairs(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1));
}
SNUG_INLINE PairsX16 broadcast_pair(const std::uint16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  const __m256i both = _mm256_set1_epi32(pair);
  return widen_pairs(both, both);
}
SNUG_INLINE F32x16 dot_pairs(F32x16 acc, PairsX16 a, PairsX16 b) {
  return fma(a.odd, b.odd, fma(a.even, b.even, acc));
}

}  // namespace snug::SNUG_ISA_NS
