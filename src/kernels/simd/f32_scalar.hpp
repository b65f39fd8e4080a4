#pragma once
/// F32x16 as an array: the reference that every other instruction set is tested against. Included by f32.hpp only.
/// fma here rounds twice: a fused one would be a library call on machines without the instruction.

#include <cmath>

namespace snug::SNUG_ISA_NS {

struct F32x16 {
  float v[16];
};
struct I32x16 {
  std::int32_t v[16];
};
struct Mask16 {
  bool v[16];
};
struct PairsX16 {
  F32x16 even, odd;
};

template <typename Result, typename Function>
SNUG_INLINE Result each_lane(Function&& function) {
  Result r;
  for (std::size_t i = 0; i < 16; ++i) r.v[i] = function(i);
  return r;
}

SNUG_INLINE F32x16 load(const float* p) {
  F32x16 r;
  __builtin_memcpy(r.v, p, sizeof r.v);
  return r;
}
SNUG_INLINE void store(float* p, const F32x16& a) {
  __builtin_memcpy(p, a.v, sizeof a.v);
}
SNUG_INLINE F32x16 set1(float x) {
  return each_lane<F32x16>([&](std::size_t) { return x; });
}
SNUG_INLINE F32x16 zero() {
  return set1(0.0f);
}
SNUG_INLINE F32x16 load_n(const float* p, std::size_t n, const F32x16& fill) {
  return each_lane<F32x16>([&](std::size_t i) { return i < n ? p[i] : fill.v[i]; });
}
SNUG_INLINE F32x16 load_n(const float* p, std::size_t n) {
  return load_n(p, n, zero());
}
SNUG_INLINE void store_n(float* p, std::size_t n, const F32x16& a) {
  __builtin_memcpy(p, a.v, n * sizeof(float));
}

SNUG_INLINE F32x16 add(const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return a.v[i] + b.v[i]; });
}
SNUG_INLINE F32x16 sub(const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return a.v[i] - b.v[i]; });
}
SNUG_INLINE F32x16 mul(const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return a.v[i] * b.v[i]; });
}
SNUG_INLINE F32x16 div(const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return a.v[i] / b.v[i]; });
}
SNUG_INLINE F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each_lane<F32x16>([&](std::size_t i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
SNUG_INLINE F32x16 max(const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
SNUG_INLINE F32x16 min(const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
SNUG_INLINE F32x16 sqrt(const F32x16& a) {
  return each_lane<F32x16>([&](std::size_t i) { return __builtin_sqrtf(a.v[i]); });
}
SNUG_INLINE F32x16 abs(const F32x16& a) {
  return each_lane<F32x16>([&](std::size_t i) { return __builtin_fabsf(a.v[i]); });
}
SNUG_INLINE F32x16 round(const F32x16& a) {
  // Adding 1.5 * 2^23 leaves no fraction bits; larger values have none.
  return each_lane<F32x16>(
      [&](std::size_t i) { return __builtin_fabsf(a.v[i]) < 0x1p22f ? (a.v[i] + 0x1.8p23f) - 0x1.8p23f : a.v[i]; });
}
SNUG_INLINE float power_of_two(std::int32_t n) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(n + 127) << 23);
}
/// In two steps, so that 2^n itself may be out of range: results may be denormal or infinite.
SNUG_INLINE F32x16 scale2(const F32x16& a, const F32x16& n) {
  return each_lane<F32x16>([&](std::size_t i) {
    // A NaN is in a as well; beyond +-300 any float is 0 or infinite.
    const float e = n.v[i] < -300.0f ? -300.0f : n.v[i] < 300.0f ? n.v[i] : n.v[i] == n.v[i] ? 300.0f : 0.0f;
    const auto whole = static_cast<std::int32_t>(e);
    const std::int32_t first = whole >> 1;
    return a.v[i] * power_of_two(first) * power_of_two(whole - first);
  });
}

SNUG_INLINE Mask16 less(const F32x16& a, const F32x16& b) {
  return each_lane<Mask16>([&](std::size_t i) { return a.v[i] < b.v[i]; });
}
SNUG_INLINE Mask16 lane_range(std::size_t begin, std::size_t end) {
  return each_lane<Mask16>([&](std::size_t i) { return begin <= i && i < end; });
}
SNUG_INLINE F32x16 select(const Mask16& m, const F32x16& a, const F32x16& b) {
  return each_lane<F32x16>([&](std::size_t i) { return m.v[i] ? a.v[i] : b.v[i]; });
}

SNUG_INLINE float hsum(F32x16 a) {
  for (std::size_t half = 8; half != 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  }
  return a.v[0];
}
SNUG_INLINE float hmax(F32x16 a) {
  for (std::size_t half = 8; half != 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  }
  return a.v[0];
}

SNUG_INLINE I32x16 load_i32(const std::int32_t* p) {
  I32x16 r;
  __builtin_memcpy(r.v, p, sizeof r.v);
  return r;
}
SNUG_INLINE void store_i32(std::int32_t* p, const I32x16& a) {
  __builtin_memcpy(p, a.v, sizeof a.v);
}
SNUG_INLINE I32x16 set1_i32(std::int32_t x) {
  return each_lane<I32x16>([&](std::size_t) { return x; });
}
SNUG_INLINE I32x16 add_i32(const I32x16& a, const I32x16& b) {
  return each_lane<I32x16>([&](std::size_t i) { return a.v[i] + b.v[i]; });
}
SNUG_INLINE F32x16 to_f32(const I32x16& a) {
  return each_lane<F32x16>([&](std::size_t i) { return static_cast<float>(a.v[i]); });
}
SNUG_INLINE I32x16 to_i32(const F32x16& a) {
  const F32x16 whole = round(a);
  // NaN and what does not fit become the least integer, as x86 has it.
  return each_lane<I32x16>([&](std::size_t i) {
    return __builtin_fabsf(whole.v[i]) < 0x1p31f ? static_cast<std::int32_t>(whole.v[i]) : INT32_MIN;
  });
}

SNUG_INLINE float f16_value(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t magnitude = h & 0x7fffu;
  // Placed in f32's fields the exponent is too small by 112; a product corrects it, denormals included.
  if (magnitude < 0x7c00u) {
    const float value = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
    return __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, value) | sign);
  }
  return __builtin_bit_cast(float, sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
}
SNUG_INLINE float bf16_value(std::uint16_t h) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(h) << 16);
}
SNUG_INLINE F32x16 load_f16(const std::uint16_t* p) {
  return each_lane<F32x16>([&](std::size_t i) { return f16_value(p[i]); });
}
SNUG_INLINE F32x16 load_bf16(const std::uint16_t* p) {
  return each_lane<F32x16>([&](std::size_t i) { return bf16_value(p[i]); });
}
SNUG_INLINE void store_bf16(std::uint16_t* p, const F32x16& a) {
  for (std::size_t i = 0; i < 16; ++i) {
    const auto bits = __builtin_bit_cast(std::uint32_t, a.v[i]);
    const std::uint32_t rounded = a.v[i] == a.v[i] ? bits + 0x7fffu + (bits >> 16 & 1u) : bits | 0x400000u;
    p[i] = static_cast<std::uint16_t>(rounded >> 16);
  }
}

SNUG_INLINE PairsX16 load_pairs(const std::uint16_t* p) {
  return {each_lane<F32x16>([&](std::size_t i) { return bf16_value(p[2 * i]); }),
          each_lane<F32x16>([&](std::size_t i) { return bf16_value(p[2 * i + 1]); })};
}
SNUG_INLINE PairsX16 broadcast_pair(const std::uint16_t* p) {
  return {set1(bf16_value(p[0])), set1(bf16_value(p[1]))};
}
SNUG_INLINE F32x16 dot_pairs(const F32x16& acc, const PairsX16& a, const PairsX16& b) {
  return fma(a.odd, b.odd, fma(a.even, b.even, acc));
}

}  // namespace snug::SNUG_ISA_NS
