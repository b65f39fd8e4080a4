#pragma once
/// How a packed block of each type becomes bricks of 16 rows x 32 values: eight vectors of bytes, scales and minimums.
/// Unpack<type> has
///   kBricks   bricks per block
///   kScales   scales per brick: 1, or 2 (one per 16 values)
///   kMins     minimums per brick: 0; 1: value = scale * byte + min; 2: value = scale * byte - min
///   kSigned   bytes are signed (multiply with dot_signed)
///   kOffset   log2 of what an unsigned byte is too large by, -1: nothing
///   State begin(block)            what the whole block needs
///   brick(block, state, b, out)   brick b

#include "kernels/dtype.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/tables.hpp"

namespace snug::SNUG_ISA_NS {

using Block = const std::byte*;

struct Brick {
  U32x16 bytes[8];
  F32x16 scale[2], min[2];
};

inline constexpr std::uint32_t kNibbles = 0x0F0F0F0F;

SNUG_INLINE F32x16 halfs(Block p) {
  return load_f16(reinterpret_cast<const std::uint16_t*>(p));
}

/// Bytes of a 32-value block of nibbles: words 0..3 hold values 0..15 low and 16..31 high.
SNUG_INLINE void split_nibbles(Block words, U32x16* out) {
  for (int i = 0; i < 4; ++i) {
    const U32x16 w = load_u32(words + i * 64);
    out[i] = w & kNibbles;
    out[i + 4] = (w >> 4) & kNibbles;
  }
}

struct NoState {};

template <int mins, int offset, bool is_signed = false>
struct Block32 {
  static constexpr int kBricks = 1, kScales = 1, kMins = mins, kOffset = offset;
  static constexpr bool kSigned = is_signed;
  using State = NoState;
  static SNUG_INLINE State begin(Block) { return {}; }
};

template <DType type>
struct Unpack;

template <>
struct Unpack<DType::q4_0> : Block32<0, 3> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    out.scale[0] = halfs(p);
    split_nibbles(p + 32, out.bytes);
  }
};

template <>
struct Unpack<DType::q4_1> : Block32<1, -1> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    out.scale[0] = halfs(p);
    out.min[0] = halfs(p + 32);
    split_nibbles(p + 64, out.bytes);
  }
};

/// Bit 4 of values 4g .. 4g+3, spread from bits 4g .. 4g+3 of each lane to bit 4 of its four bytes.
SNUG_INLINE U32x16 fifth_bits(U32x16 bits, int g) {
#if defined(SNUG_ISA_avx512)
  // Byte i of a 64-bit pair of lanes takes the pair's bits from here on, so that bit 4 is the wanted one.
  const auto from = [g](int i) {
    return (std::uint64_t{32} * (i / 4) + static_cast<unsigned>(4 * g + i % 4 + 60)) % 64;
  };
  std::uint64_t control = 0;
  for (int i = 0; i < 8; ++i) control |= from(i) << (8 * i);
  const __m512i spread =
      _mm512_multishift_epi64_epi8(_mm512_set1_epi64(static_cast<long long>(control)), reinterpret_cast<__m512i>(bits));
  return reinterpret_cast<U32x16>(spread) & 0x10101010u;
#else
  return ((((bits >> (4 * g)) & 15u) * 0x00204081u) & 0x01010101u) << 4;
#endif
}

template <>
struct Unpack<DType::q5_0> : Block32<0, 4> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    out.scale[0] = halfs(p);
    const U32x16 fifth = load_u32(p + 32);
    split_nibbles(p + 96, out.bytes);
    for (int g = 0; g < 8; ++g) out.bytes[g] |= fifth_bits(fifth, g);
  }
};

template <>
struct Unpack<DType::q5_1> : Block32<1, -1> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    out.scale[0] = halfs(p);
    out.min[0] = halfs(p + 32);
    const U32x16 fifth = load_u32(p + 64);
    split_nibbles(p + 128, out.bytes);
    for (int g = 0; g < 8; ++g) out.bytes[g] |= fifth_bits(fifth, g);
  }
};

template <>
struct Unpack<DType::q8_0> : Block32<0, -1, true> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    out.scale[0] = halfs(p);
    for (int g = 0; g < 8; ++g) out.bytes[g] = ready_signed(load_u32(p + 32 + g * 64));
  }
};

template <>
struct Unpack<DType::iq4_nl> : Block32<0, -1, true> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    out.scale[0] = halfs(p);
    split_nibbles(p + 32, out.bytes);
    for (U32x16& w : out.bytes) w = ready_signed(look_up(kIq4Values, w));
  }
};

template <>
struct Unpack<DType::mxfp4> : Block32<0, -1, true> {
  static SNUG_INLINE void brick(Block p, const State&, int, Brick& out) {
    // 2^(e - 128) as float bits: exponent e - 1, or for e < 2 a subnormal.
    const U32x16 e = widen(load_vector<U8x16>(p));
    out.scale[0] = as_f32(e < 2u ? splat(0x00200000u) << e : (e - 1u) << 23);
    split_nibbles(p + 16, out.bytes);
    for (U32x16& w : out.bytes) w = ready_signed(look_up(kMxfp4Values, w));
  }
};

struct Block256 {
  static constexpr int kBricks = 8;
  static constexpr bool kSigned = false;
};

/// Q4_K and Q5_K: d, -dmin, and eight 6-bit scales and minimums in three words.
struct ScaleMin {
  F32x16 d, dmin;
  U32x16 scales[2], mins[2];
};

SNUG_INLINE ScaleMin load_scale_min(Block p) {
  const U32x16 w0 = load_u32(p + 64), w1 = load_u32(p + 128), w2 = load_u32(p + 192);
  ScaleMin s;
  s.d = halfs(p);
  s.dmin = sub(zero(), halfs(p + 32));
  s.scales[0] = w0 & 0x3F3F3F3Fu;
  s.mins[0] = w1 & 0x3F3F3F3Fu;
  s.scales[1] = (w2 & kNibbles) | (((w0 >> 6) & 0x03030303u) << 4);
  s.mins[1] = ((w2 >> 4) & kNibbles) | (((w1 >> 6) & 0x03030303u) << 4);
  return s;
}

/// Byte `i` of every lane.
SNUG_INLINE F32x16 byte_of(U32x16 v, int i) {
  return to_f32((v >> (8 * i)) & 255u);
}

template <>
struct Unpack<DType::q4_k> : Block256 {
  static constexpr int kScales = 1, kMins = 1, kOffset = -1;
  using State = ScaleMin;
  static SNUG_INLINE State begin(Block p) { return load_scale_min(p); }
  static SNUG_INLINE void scale(const State& s, int b, Brick& out) {
    out.scale[0] = mul(s.d, byte_of(s.scales[b / 4], b % 4));
    out.min[0] = mul(s.dmin, byte_of(s.mins[b / 4], b % 4));
  }
  static SNUG_INLINE void brick(Block p, const State& s, int b, Brick& out) {
    scale(s, b, out);
    for (int g = 0; g < 8; ++g) out.bytes[g] = (load_u32(p + 256 + (b / 2 * 8 + g) * 64) >> (b % 2 * 4)) & kNibbles;
  }
};

template <>
struct Unpack<DType::q5_k> : Unpack<DType::q4_k> {
  static SNUG_INLINE void brick(Block p, const State& s, int b, Brick& out) {
    scale(s, b, out);
    for (int g = 0; g < 8; ++g) {
      const U32x16 fifth = ((load_u32(p + 256 + g * 64) >> b) & 0x01010101u) << 4;
      out.bytes[g] = ((load_u32(p + 768 + (b / 2 * 8 + g) * 64) >> (b % 2 * 4)) & kNibbles) | fifth;
    }
  }
};

/// Scales of 16 values as bytes of words in GGUF order, biased so that lanes are unsigned.
SNUG_INLINE void signed_scale_pair(F32x16 d, U32x16 word, int b, int bias, Brick& out) {
  const F32x16 less = set1(static_cast<float>(bias));
  out.scale[0] = mul(d, sub(byte_of(word, b % 2 * 2), less));
  out.scale[1] = mul(d, sub(byte_of(word, b % 2 * 2 + 1), less));
}

template <>
struct Unpack<DType::q6_k> : Block256 {
  static constexpr int kScales = 2, kMins = 0, kOffset = 5;
  using State = F32x16;
  static SNUG_INLINE State begin(Block p) { return halfs(p + 208 * 16); }
  static SNUG_INLINE void brick(Block p, const State& d, int b, Brick& out) {
    signed_scale_pair(d, load_u32(p + (48 + b / 2) * 64) ^ 0x80808080u, b, 128, out);
    const int half = b / 4, quarter = b % 4;
    for (int g = 0; g < 8; ++g) {
      const U32x16 ql = load_u32(p + (half * 16 + quarter % 2 * 8 + g) * 64);
      const U32x16 qh = load_u32(p + (32 + half * 8 + g) * 64);
      out.bytes[g] = ((ql >> (quarter / 2 * 4)) & kNibbles) | (((qh >> (2 * quarter)) & 0x03030303u) << 4);
    }
  }
};

template <>
struct Unpack<DType::q3_k> : Block256 {
  static constexpr int kScales = 2, kMins = 0, kOffset = 2;
  struct State {
    F32x16 d;
    U32x16 scales[4];
  };
  static SNUG_INLINE State begin(Block p) {
    const U32x16 w0 = load_u32(p + 96 * 16), w1 = load_u32(p + 100 * 16), w2 = load_u32(p + 104 * 16);
    State s;
    s.d = halfs(p + 108 * 16);
    s.scales[0] = (w0 & kNibbles) | ((w2 & 0x03030303u) << 4);
    s.scales[1] = (w1 & kNibbles) | (((w2 >> 2) & 0x03030303u) << 4);
    s.scales[2] = ((w0 >> 4) & kNibbles) | (((w2 >> 4) & 0x03030303u) << 4);
    s.scales[3] = ((w1 >> 4) & kNibbles) | (((w2 >> 6) & 0x03030303u) << 4);
    return s;
  }
  static SNUG_INLINE void brick(Block p, const State& s, int b, Brick& out) {
    signed_scale_pair(s.d, s.scales[b / 2], b, 32, out);
    for (int g = 0; g < 8; ++g) {
      const U32x16 low = (load_u32(p + (8 + b / 4 * 8 + g) * 64) >> (b % 4 * 2)) & 0x03030303u;
      out.bytes[g] = low | (((load_u32(p + g * 64) >> b) & 0x01010101u) << 2);
    }
  }
};

template <>
struct Unpack<DType::q2_k> : Block256 {
  static constexpr int kScales = 2, kMins = 2, kOffset = -1;
  struct State {
    F32x16 d, dmin;
  };
  static SNUG_INLINE State begin(Block p) { return {halfs(p + 80 * 16), halfs(p + 82 * 16)}; }
  static SNUG_INLINE void brick(Block p, const State& s, int b, Brick& out) {
    const U32x16 word = load_u32(p + b / 2 * 64);
    for (int i = 0; i < 2; ++i) {
      const int byte = b % 2 * 2 + i;
      out.scale[i] = mul(s.d, byte_of(word & kNibbles, byte));
      out.min[i] = mul(s.dmin, byte_of((word >> 4) & kNibbles, byte));
    }
    for (int g = 0; g < 8; ++g) out.bytes[g] = (load_u32(p + (4 + b / 4 * 8 + g) * 64) >> (b % 4 * 2)) & 0x03030303u;
  }
};

template <>
struct Unpack<DType::iq4_xs> : Block256 {
  static constexpr int kScales = 1, kMins = 0, kOffset = -1;
  static constexpr bool kSigned = true;
  struct State {
    F32x16 d;
    U32x16 high, low;
  };
  static SNUG_INLINE State begin(Block p) { return {halfs(p), widen(load_vector<U16x16>(p + 32)), load_u32(p + 64)}; }
  static SNUG_INLINE void brick(Block p, const State& s, int b, Brick& out) {
    const U32x16 six = ((s.low >> (4 * b)) & 15u) | (((s.high >> (2 * b)) & 3u) << 4);
    out.scale[0] = mul(s.d, sub(to_f32(six), set1(32.0f)));
    split_nibbles(p + 128 + b * 256, out.bytes);
    for (U32x16& w : out.bytes) w = ready_signed(look_up(kIq4Values, w));
  }
};

}  // namespace snug::SNUG_ISA_NS
