#pragma once
/// Functions over F32x16 that read the same on every instruction set. Included by f32.hpp only.

#include <limits>

namespace snug::SNUG_ISA_NS {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// e^x within 1-2 ulp; exactly 0 for -inf, +inf on overflow, NaN stays NaN.
SNUG_INLINE F32x16 exp(F32x16 x) {
  // Operand order keeps NaN. e^-104 rounds to 0 and e^89 to inf, so the clamps change no result.
  x = min(set1(89.0f), max(set1(-104.0f), x));
  const F32x16 n = round(mul(x, set1(1.44269504f)));
  // ln 2 in two parts: n times the first is exact.
  F32x16 r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  F32x16 p = set1(0.00138144648f);
  p = fma(p, r, set1(0.00836878062f));
  p = fma(p, r, set1(0.0416683943f));
  p = fma(p, r, set1(0.166665201f));
  p = fma(p, r, set1(0.499999934f));
  p = fma(mul(r, r), p, r);
  return scale2(add(p, set1(1.0f)), n);
}

/// 2^x for x <= 0 within a relative error of 3e-6 (far below the rounding to bf16 that follows); 0 below 2^-126.
SNUG_INLINE F32x16 exp2_coarse(F32x16 x) {
  x = max(set1(-160.0f), x);  // this order keeps NaN
  const F32x16 n = round(x);
  const F32x16 f = sub(x, n);
  F32x16 p = set1(0.00958285066f);
  p = fma(p, f, set1(0.0559064282f));
  p = fma(p, f, set1(0.240240987f));
  p = fma(p, f, set1(0.693124193f));
  p = fma(p, f, set1(1.0f));
  return scale2(p, n);
}

SNUG_INLINE F32x16 negate(F32x16 x) {
  return sub(zero(), x);
}

/// 1 / (1 + e^-x)
SNUG_INLINE F32x16 sigmoid(F32x16 x) {
  return div(set1(1.0f), add(set1(1.0f), exp(negate(x))));
}

SNUG_INLINE F32x16 tanh(F32x16 x) {
  const F32x16 z = mul(x, x);
  F32x16 p = set1(-0.00566698033f);
  p = fma(p, z, set1(0.0206061799f));
  p = fma(p, z, set1(-0.0537300083f));
  p = fma(p, z, set1(0.13331331f));
  p = fma(p, z, set1(-0.333332781f));
  const F32x16 near_zero = fma(mul(x, z), p, x);
  // 1 - 2 / (e^2|x| + 1), with the sign of x
  const F32x16 size = abs(x);
  const F32x16 far = sub(set1(1.0f), div(set1(2.0f), add(exp(add(size, size)), set1(1.0f))));
  const F32x16 signed_far = select(less(x, zero()), negate(far), far);
  return select(less(size, set1(0.625f)), near_zero, signed_far);
}

}  // namespace snug::SNUG_ISA_NS
