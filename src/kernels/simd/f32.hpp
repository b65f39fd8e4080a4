#pragma once
/// The vocabulary that kernel sources are written in: vectors of 16 lanes, whatever the instruction set.
/// F32x16 and I32x16 are one AVX-512 register, two AVX2, four NEON, or an array. The per-ISA files define:
///   load, store, load_n, store_n (n < 16 lanes), zero, set1, add, sub, mul, div, fma (a * b + c), max, min, sqrt, abs
///   hsum, hmax          always folded as 16 -> 8 -> 4 -> 2 -> 1, lane i with lane i + half
///   hsum_each           the sums of up to 16 vectors
///   Mask16: less, lane_range (begin <= lane < end), select (mask ? a : b)
///   load_f16, load_bf16 (16 values), store_bf16 (nearest even)
///   load_i32, set1_i32, add_i32, to_f32, to_i32 (nearest even), round (nearest even), scale2 (a * 2^n, n integral)
///   PairsX16: 16 pairs of bf16; load_pairs, broadcast_pair, dot_pairs (acc + even * even + odd * odd, fixed order)
///   store_both: store_bf16 twice; gives what load_pairs finds there
/// max(a, b) is a > b ? a : b with NaN in b kept, on x86 and in the scalar build.

#include <cstddef>
#include <cstdint>

#define SNUG_INLINE inline __attribute__((always_inline))
/// Loops over registers must be unrolled to stay in registers; over the arrays of the scalar build that only costs
/// compile time.
#if defined(SNUG_ISA_scalar)
#define SNUG_UNROLL(n)
#else
#define SNUG_UNROLL(n) _Pragma(SNUG_UNROLL_TEXT(GCC unroll n))
#define SNUG_UNROLL_TEXT(x) #x
#endif

#if defined(SNUG_ISA_avx512)
#include "kernels/simd/f32_avx512.hpp"
#elif defined(SNUG_ISA_avx2)
#include "kernels/simd/f32_avx2.hpp"
#elif defined(SNUG_ISA_neon)
#include "kernels/simd/f32_neon.hpp"
#else
#include "kernels/simd/f32_scalar.hpp"
#endif

#if !defined(SNUG_ISA_avx512)
namespace snug::SNUG_ISA_NS {
/// out[i] = hsum(v[i]) for i < n <= 16.
SNUG_INLINE void hsum_each(const F32x16* v, std::size_t n, float* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = hsum(v[i]);
}
SNUG_INLINE PairsX16 store_both(std::uint16_t* p, F32x16 a, F32x16 b) {
  store_bf16(p, a);
  store_bf16(p + 16, b);
  return load_pairs(p);
}
}  // namespace snug::SNUG_ISA_NS
#endif

#include "kernels/simd/f32_math.hpp"
