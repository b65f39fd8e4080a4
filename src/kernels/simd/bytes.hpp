#pragma once
/// Integer vocabulary of the products: 64 bytes = 16 rows x 4 consecutive values (lane r = row r). Bit operations are
/// the compiler's vector extension; what has its own instruction is here.

#include <cstdint>
#include <cstring>

#include "kernels/simd/f32.hpp"

namespace snug::SNUG_ISA_NS {

typedef std::uint32_t U32x16 __attribute__((vector_size(64)));
typedef std::uint8_t U8x16 __attribute__((vector_size(16)));
typedef std::uint16_t U16x16 __attribute__((vector_size(32)));

template <class Vector>
SNUG_INLINE Vector load_vector(const void* p) {
  Vector v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
SNUG_INLINE U32x16 load_u32(const void* p) {
  return load_vector<U32x16>(p);
}
SNUG_INLINE void store_words(void* p, U32x16 v) {
  std::memcpy(p, &v, sizeof(v));
}
SNUG_INLINE U32x16 widen(U8x16 v) {
  return __builtin_convertvector(v, U32x16);
}
SNUG_INLINE U32x16 widen(U16x16 v) {
  return __builtin_convertvector(v, U32x16);
}
SNUG_INLINE U32x16 splat(std::uint32_t v) {
  return U32x16{} + v;
}

SNUG_INLINE I32x16 as_i32(U32x16 v) {
  I32x16 out;
  static_assert(sizeof(out) == sizeof(v));
  std::memcpy(&out, &v, sizeof(v));
  return out;
}
SNUG_INLINE F32x16 as_f32(U32x16 v) {
  F32x16 out;
  static_assert(sizeof(out) == sizeof(v));
  std::memcpy(&out, &v, sizeof(v));
  return out;
}
/// The lower and the upper half of each word, which are bf16.
SNUG_INLINE F32x16 even_bf16(U32x16 v) {
  return as_f32(v << splat(16));
}
SNUG_INLINE F32x16 odd_bf16(U32x16 v) {
  return as_f32(v & splat(0xffff0000u));
}
SNUG_INLINE float widen_bf16(std::uint16_t v) {
  const std::uint32_t bits = std::uint32_t{v} << 16;
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}
/// Lanes of `even` and `odd` in turn, rounded to bf16 (nearest, ties to even). REQUIRES: finite.
SNUG_INLINE void store_pairs(std::uint16_t* p, F32x16 even, F32x16 odd) {
#if defined(SNUG_ISA_avx512)
  alignas(64) static constexpr std::uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both));
#else
  const auto rounded = [](F32x16 x) {
    U32x16 bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits + splat(0x7fff) + (bits >> splat(16) & splat(1));
  };
  store_words(p, rounded(even) >> splat(16) | (rounded(odd) & splat(0xffff0000u)));
#endif
}
/// Lanes as signed integers, converted.
SNUG_INLINE F32x16 to_f32(U32x16 v) {
  return to_f32(as_i32(v));
}

/// Whether dot_signed needs its weights biased by 128 (vpdpbusd multiplies unsigned by signed), and the accumulator
/// started at -128 * sum of the activations.
#if defined(SNUG_ISA_avx512)
inline constexpr bool kBiasSigned = true;
#else
inline constexpr bool kBiasSigned = false;
#endif

/// acc[lane] += sum over 4 values of w (unsigned, at most 63, or kBiasSigned-biased) * a (signed, a[0..3] for every
/// lane).
SNUG_INLINE I32x16 dot_unsigned(I32x16 acc, U32x16 w, const std::int8_t* a) {
  std::int32_t four;
  std::memcpy(&four, a, 4);
#if defined(SNUG_ISA_avx512)
  return {_mm512_dpbusd_epi32(acc.v, reinterpret_cast<__m512i>(w), _mm512_set1_epi32(four))};
#elif defined(SNUG_ISA_avx2)
  const __m256i x = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
  __m256i half[2], sum[2];
  std::memcpy(half, &w, sizeof(half));
  std::memcpy(sum, &acc, sizeof(sum));
  for (int i = 0; i < 2; ++i)
    sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(half[i], x), ones));
  std::memcpy(&acc, sum, sizeof(sum));
  return acc;
#elif defined(SNUG_ISA_neon)
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
  int8x16_t part[4];
  int32x4_t sum[4];
  std::memcpy(part, &w, sizeof(part));
  std::memcpy(sum, &acc, sizeof(sum));
  for (int i = 0; i < 4; ++i) sum[i] = vdotq_s32(sum[i], part[i], x);
  std::memcpy(&acc, sum, sizeof(sum));
  return acc;
#else
  std::uint8_t bytes[64];
  std::int32_t sum[16];
  std::memcpy(bytes, &w, sizeof(bytes));
  std::memcpy(sum, &acc, sizeof(sum));
  for (int lane = 0; lane < 16; ++lane)
    for (int i = 0; i < 4; ++i) sum[lane] += bytes[lane * 4 + i] * a[i];
  std::memcpy(&acc, sum, sizeof(sum));
  return acc;
#endif
}

/// The same, where registers are short: the words of x come from memory with each product. (Left to itself, the
/// compiler loads them early and spills them.)
SNUG_INLINE I32x16 dot_unsigned_in_place(I32x16 acc, U32x16 w, const std::int8_t* a) {
#if defined(SNUG_ISA_avx512)
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w), "m"(*reinterpret_cast<const std::int8_t(*)[4]>(a)));
  return acc;
#else
  return dot_unsigned(acc, w, a);
#endif
}

/// The same for weights in [-127, 127], as ready_signed() returns them.
SNUG_INLINE I32x16 dot_signed(I32x16 acc, U32x16 w, const std::int8_t* a) {
#if defined(SNUG_ISA_avx512) || defined(SNUG_ISA_neon)
  return dot_unsigned(acc, w, a);
#elif defined(SNUG_ISA_avx2)
  // maddubs saturates at 16 bits for 8-bit weights: give it |w| and a with the sign of w.
  std::int32_t four;
  std::memcpy(&four, a, 4);
  const __m256i x = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
  __m256i half[2], sum[2];
  std::memcpy(half, &w, sizeof(half));
  std::memcpy(sum, &acc, sizeof(sum));
  for (int i = 0; i < 2; ++i) {
    const __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8(half[i]), _mm256_sign_epi8(x, half[i]));
    sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(products, ones));
  }
  std::memcpy(&acc, sum, sizeof(sum));
  return acc;
#else
  std::int8_t bytes[64];
  std::int32_t sum[16];
  std::memcpy(bytes, &w, sizeof(bytes));
  std::memcpy(sum, &acc, sizeof(sum));
  for (int lane = 0; lane < 16; ++lane)
    for (int i = 0; i < 4; ++i) sum[lane] += bytes[lane * 4 + i] * a[i];
  std::memcpy(&acc, sum, sizeof(sum));
  return acc;
#endif
}
/// As dot_unsigned_in_place().
SNUG_INLINE I32x16 dot_signed_in_place(I32x16 acc, U32x16 w, const std::int8_t* a) {
#if defined(SNUG_ISA_avx512)
  return dot_unsigned_in_place(acc, w, a);
#else
  return dot_signed(acc, w, a);
#endif
}
SNUG_INLINE U32x16 ready_signed(U32x16 w) {
  return kBiasSigned ? w ^ 0x80808080u : w;
}

/// Each byte (0..15) replaced by table[byte].
SNUG_INLINE U32x16 look_up(const std::int8_t* table, U32x16 codes) {
#if defined(SNUG_ISA_avx512)
  const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return reinterpret_cast<U32x16>(_mm512_shuffle_epi8(t, reinterpret_cast<__m512i>(codes)));
#elif defined(SNUG_ISA_avx2)
  const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  __m256i half[2];
  std::memcpy(half, &codes, sizeof(half));
  for (auto& h : half) h = _mm256_shuffle_epi8(t, h);
  std::memcpy(&codes, half, sizeof(half));
  return codes;
#elif defined(SNUG_ISA_neon)
  const int8x16_t t = vld1q_s8(table);
  uint8x16_t part[4];
  std::memcpy(part, &codes, sizeof(part));
  for (auto& p : part) p = vreinterpretq_u8_s8(vqtbl1q_s8(t, p));
  std::memcpy(&codes, part, sizeof(part));
  return codes;
#else
  std::uint8_t bytes[64];
  std::memcpy(bytes, &codes, sizeof(bytes));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(table[b]);
  std::memcpy(&codes, bytes, sizeof(bytes));
  return codes;
#endif
}

/// Values in [-128, 127] as bytes, and back.
SNUG_INLINE void store_i8(std::int8_t* p, I32x16 v) {
#if defined(SNUG_ISA_avx512)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v.v));
#else
  std::int32_t words[16];
  std::memcpy(words, &v, sizeof(words));
  for (int i = 0; i < 16; ++i) p[i] = static_cast<std::int8_t>(words[i]);
#endif
}
SNUG_INLINE I32x16 load_i8(const std::int8_t* p) {
  typedef std::int8_t I8x16 __attribute__((vector_size(16)));
  typedef std::int32_t Words __attribute__((vector_size(64)));
  const Words words = __builtin_convertvector(load_vector<I8x16>(p), Words);
  I32x16 out;
  std::memcpy(&out, &words, sizeof(out));
  return out;
}

/// Lane i: the largest lane of v[i].
SNUG_INLINE F32x16 max_of_each(F32x16 (&v)[16]) {
#if defined(SNUG_ISA_avx512)
  // Each step folds two vectors into one that holds half as many lanes of either.
  const auto fold = [](__m512 a, __m512 b, auto low, auto high) { return _mm512_max_ps(low(a, b), high(a, b)); };
  __m512 t[8];
  for (int i = 0; i < 8; ++i)
    t[i] = fold(
        v[i].v, v[i + 8].v, [](__m512 a, __m512 b) { return _mm512_shuffle_f32x4(a, b, 0x44); },
        [](__m512 a, __m512 b) { return _mm512_shuffle_f32x4(a, b, 0xEE); });
  for (int i = 0; i < 4; ++i)
    t[i] = fold(
        t[i], t[i + 4], [](__m512 a, __m512 b) { return _mm512_shuffle_f32x4(a, b, 0x88); },
        [](__m512 a, __m512 b) { return _mm512_shuffle_f32x4(a, b, 0xDD); });
  for (int i = 0; i < 2; ++i)
    t[i] = fold(
        t[i], t[i + 2], [](__m512 a, __m512 b) { return _mm512_shuffle_ps(a, b, 0x44); },
        [](__m512 a, __m512 b) { return _mm512_shuffle_ps(a, b, 0xEE); });
  t[0] = fold(
      t[0], t[1], [](__m512 a, __m512 b) { return _mm512_shuffle_ps(a, b, 0x88); },
      [](__m512 a, __m512 b) { return _mm512_shuffle_ps(a, b, 0xDD); });
  // 128-bit part p, lane l now belongs to the vector whose number has p's bits at 8 and 4, l's at 2 and 1.
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  return {_mm512_permutexvar_ps(order, t[0])};
#else
  float tops[16];
  for (int i = 0; i < 16; ++i) tops[i] = hmax(v[i]);
  return load(tops);
#endif
}

/// out[i] = minus the sum of q[16 i .. 16 i + 15], for i < 16.
SNUG_INLINE void store_negative_sums(const std::int8_t* q, std::int32_t* out) {
#if defined(SNUG_ISA_avx512)
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i s[4];
  for (int i = 0; i < 4; ++i) s[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_loadu_si512(q + 64 * i));
  // Within each 128-bit part: a transposed sum of four vectors.
  const __m512i t0 = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
  const __m512i t1 = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
  const __m512i sums = _mm512_add_epi32(_mm512_unpacklo_epi64(t0, t1), _mm512_unpackhi_epi64(t0, t1));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(out, _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_permutexvar_epi32(order, sums)));
#else
  for (int i = 0; i < 16; ++i) {
    std::int32_t sum = 0;
    for (int j = 0; j < 16; ++j) sum += q[16 * i + j];
    out[i] = -sum;
  }
#endif
}

}  // namespace snug::SNUG_ISA_NS
