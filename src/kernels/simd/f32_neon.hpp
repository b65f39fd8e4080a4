#pragma once
/// F32x16 as four NEON q registers. Included by f32.hpp only.

#include <arm_neon.h>

namespace snug::SNUG_ISA_NS {

struct F32x16 {
  float32x4_t v[4];
};
struct I32x16 {
  int32x4_t v[4];
};
struct Mask16 {
  uint32x4_t v[4];
};
struct PairsX16 {
  F32x16 even, odd;  ///< widened: bf16 is the upper half of f32
};

template <typename Result, typename Function>
SNUG_INLINE Result each_quarter(Function&& function) {
  return {{function(0), function(1), function(2), function(3)}};
}

SNUG_INLINE F32x16 load(const float* p) {
  return each_quarter<F32x16>([&](int i) { return vld1q_f32(p + 4 * i); });
}
SNUG_INLINE void store(float* p, F32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
SNUG_INLINE F32x16 set1(float x) {
  return each_quarter<F32x16>([&](int) { return vdupq_n_f32(x); });
}
SNUG_INLINE F32x16 zero() {
  return set1(0.0f);
}
SNUG_INLINE F32x16 load_n(const float* p, std::size_t n, F32x16 fill) {
  float lanes[16];
  store(lanes, fill);
  __builtin_memcpy(lanes, p, n * sizeof(float));
  return load(lanes);
}
SNUG_INLINE F32x16 load_n(const float* p, std::size_t n) {
  return load_n(p, n, zero());
}
SNUG_INLINE void store_n(float* p, std::size_t n, F32x16 a) {
  float lanes[16];
  store(lanes, a);
  __builtin_memcpy(p, lanes, n * sizeof(float));
}

SNUG_INLINE F32x16 add(F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 div(F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each_quarter<F32x16>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 max(F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vmaxq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 min(F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vminq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 sqrt(F32x16 a) {
  return each_quarter<F32x16>([&](int i) { return vsqrtq_f32(a.v[i]); });
}
SNUG_INLINE F32x16 abs(F32x16 a) {
  return each_quarter<F32x16>([&](int i) { return vabsq_f32(a.v[i]); });
}
SNUG_INLINE F32x16 round(F32x16 a) {
  return each_quarter<F32x16>([&](int i) { return vrndnq_f32(a.v[i]); });
}
/// In two steps, so that 2^n itself may be out of range: results may be denormal or infinite.
SNUG_INLINE F32x16 scale2(F32x16 a, F32x16 n) {
  return each_quarter<F32x16>([&](int i) {
    const int32x4_t whole = vcvtnq_s32_f32(n.v[i]);
    const int32x4_t first = vshrq_n_s32(whole, 1);
    const int32x4_t second = vsubq_s32(whole, first);
    const int32x4_t bias = vdupq_n_s32(127);
    const float32x4_t x = vmulq_f32(a.v[i], vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(first, bias), 23)));
    return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(second, bias), 23)));
  });
}

SNUG_INLINE Mask16 less(F32x16 a, F32x16 b) {
  return each_quarter<Mask16>([&](int i) { return vcltq_f32(a.v[i], b.v[i]); });
}
SNUG_INLINE Mask16 lane_range(std::size_t begin, std::size_t end) {
  static constexpr std::uint32_t kLanes[4] = {0, 1, 2, 3};
  const uint32x4_t b = vdupq_n_u32(begin > 16 ? 16u : static_cast<std::uint32_t>(begin));
  const uint32x4_t e = vdupq_n_u32(end > 16 ? 16u : static_cast<std::uint32_t>(end));
  return each_quarter<Mask16>([&](int i) {
    const uint32x4_t lane = vaddq_u32(vld1q_u32(kLanes), vdupq_n_u32(4u * static_cast<std::uint32_t>(i)));
    return vandq_u32(vcgeq_u32(lane, b), vcltq_u32(lane, e));
  });
}
SNUG_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
  return each_quarter<F32x16>([&](int i) { return vbslq_f32(m.v[i], a.v[i], b.v[i]); });
}

SNUG_INLINE float hsum(F32x16 a) {
  const float32x4_t a4 = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t a2 = vadd_f32(vget_low_f32(a4), vget_high_f32(a4));
  return vget_lane_f32(a2, 0) + vget_lane_f32(a2, 1);
}
SNUG_INLINE float hmax(F32x16 a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[2]), vmaxq_f32(a.v[1], a.v[3])));
}

SNUG_INLINE I32x16 load_i32(const std::int32_t* p) {
  return each_quarter<I32x16>([&](int i) { return vld1q_s32(p + 4 * i); });
}
SNUG_INLINE void store_i32(std::int32_t* p, I32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, a.v[i]);
}
SNUG_INLINE I32x16 set1_i32(std::int32_t x) {
  return each_quarter<I32x16>([&](int) { return vdupq_n_s32(x); });
}
SNUG_INLINE I32x16 add_i32(I32x16 a, I32x16 b) {
  return each_quarter<I32x16>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}
SNUG_INLINE F32x16 to_f32(I32x16 a) {
  return each_quarter<F32x16>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
SNUG_INLINE I32x16 to_i32(F32x16 a) {
  return each_quarter<I32x16>([&](int i) { return vcvtnq_s32_f32(a.v[i]); });
}

SNUG_INLINE F32x16 load_f16(const std::uint16_t* p) {
  return each_quarter<F32x16>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
SNUG_INLINE F32x16 load_bf16(const std::uint16_t* p) {
  return each_quarter<F32x16>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
SNUG_INLINE void store_bf16(std::uint16_t* p, F32x16 a) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a.v[i]);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t nan = vorrq_u32(bits, vdupq_n_u32(0x400000));
    const uint32x4_t is_number = vceqq_f32(a.v[i], a.v[i]);
    vst1_u16(p + 4 * i, vshrn_n_u32(vbslq_u32(is_number, rounded, nan), 16));
  }
}

SNUG_INLINE float32x4_t upper_half(uint32x4_t pairs) {
  return vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)));
}
SNUG_INLINE PairsX16 load_pairs(const std::uint16_t* p) {
  uint32x4_t quarter[4];
  for (int i = 0; i < 4; ++i) quarter[i] = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
  return {each_quarter<F32x16>([&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(quarter[i], 16)); }),
          each_quarter<F32x16>([&](int i) { return upper_half(quarter[i]); })};
}
SNUG_INLINE PairsX16 broadcast_pair(const std::uint16_t* p) {
  std::uint32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return {set1(__builtin_bit_cast(float, pair << 16)), set1(__builtin_bit_cast(float, pair & 0xffff0000u))};
}
SNUG_INLINE F32x16 dot_pairs(F32x16 acc, PairsX16 a, PairsX16 b) {
  return fma(a.odd, b.odd, fma(a.even, b.even, acc));
}

}  // namespace snug::SNUG_ISA_NS
