// The reference of every type: GGUF blocks to plain values, written for reading rather than speed. Layouts: ggml.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/tables.hpp"
#include "kernels/tile_matrix.hpp"

namespace snug {

namespace {

using Byte = std::uint8_t;

template <class T>
T load_as(const Byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

float half(const Byte* p) {
  const auto h = load_as<std::uint16_t>(p);
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  const float sign = h & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

float brain(const Byte* p) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(load_as<std::uint16_t>(p)) << 16);
}

int low(Byte b) {
  return b & 15;
}
int high(Byte b) {
  return b >> 4;
}

/// Nibbles of 16 bytes: values 0..15 low, 16..31 high; `fifth` holds bit 4 of each value.
template <class Value>
void nibbles(const Byte* q, std::uint32_t fifth, float* out, Value value) {
  for (unsigned i = 0; i < 16; ++i) {
    out[i] = value(low(q[i]) | static_cast<int>((fifth >> i) & 1) << 4);
    out[i + 16] = value(high(q[i]) | static_cast<int>((fifth >> (i + 16)) & 1) << 4);
  }
}

/// The 6-bit scales and minimums of Q4_K and Q5_K, eight each in 12 bytes.
void scale_min(const Byte* s, unsigned i, int& scale, int& minimum) {
  if (i < 4) {
    scale = s[i] & 63;
    minimum = s[i + 4] & 63;
  } else {
    scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
    minimum = (s[i + 4] >> 4) | (s[i] >> 6) << 4;
  }
}

void q4_k(const Byte* b, const Byte* fifth, const Byte* q, float* out) {
  const float d = half(b), dmin = half(b + 2);
  for (unsigned i = 0; i < 8; ++i) {
    int scale, minimum;
    scale_min(b + 4, i, scale, minimum);
    for (unsigned l = 0; l < 32; ++l) {
      const Byte byte = q[i / 2 * 32 + l];
      const int value = (i % 2 ? high(byte) : low(byte)) | (fifth ? ((fifth[l] >> i) & 1) << 4 : 0);
      out[i * 32 + l] = d * static_cast<float>(scale * value) - dmin * static_cast<float>(minimum);
    }
  }
}

void q2_k(const Byte* b, float* out) {
  const float d = half(b + 80), dmin = half(b + 82);
  for (unsigned i = 0; i < 256; ++i) {
    const int value = (b[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    const Byte s = b[i / 16];
    out[i] = d * static_cast<float>(low(s) * value) - dmin * static_cast<float>(high(s));
  }
}

void q3_k(const Byte* b, float* out) {
  const float d = half(b + 108);
  const Byte* s = b + 96;
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned j = i / 16;
    const int low4 = j < 8 ? low(s[j]) : high(s[j - 8]);
    const int scale = (low4 | ((s[8 + j % 4] >> (j / 4 * 2)) & 3) << 4) - 32;
    const int low2 = (b[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
    const int value = low2 - ((b[i % 32] >> (i / 32)) & 1 ? 0 : 4);
    out[i] = d * static_cast<float>(scale * value);
  }
}

void q6_k(const Byte* b, float* out) {
  const float d = half(b + 208);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned part = i / 128, l = i % 32, quarter = i % 128 / 32;
    const Byte ql = b[part * 64 + l + quarter % 2 * 32], qh = b[128 + part * 32 + l];
    const int value = ((quarter < 2 ? low(ql) : high(ql)) | ((qh >> (2 * quarter)) & 3) << 4) - 32;
    out[i] = d * static_cast<float>(static_cast<std::int8_t>(b[192 + i / 16]) * value);
  }
}

void iq4_xs(const Byte* b, float* out) {
  const float d = half(b);
  const auto high_bits = load_as<std::uint16_t>(b + 2);
  for (unsigned i = 0; i < 8; ++i) {
    const int low4 = i % 2 ? high(b[4 + i / 2]) : low(b[4 + i / 2]);
    const float scale = d * static_cast<float>((low4 | ((high_bits >> (2 * i)) & 3) << 4) - 32);
    nibbles(b + 8 + i * 16, 0, out + i * 32, [&](int v) { return scale * static_cast<float>(kIq4Values[v]); });
  }
}

void dequantize_block(DType type, const Byte* b, float* out) {
  switch (type) {
    case DType::f32:
      *out = load_as<float>(b);
      break;
    case DType::f16:
      *out = half(b);
      break;
    case DType::bf16:
      *out = brain(b);
      break;
    case DType::q4_0:
      nibbles(b + 2, 0, out, [d = half(b)](int v) { return d * static_cast<float>(v - 8); });
      break;
    case DType::q4_1:
      nibbles(b + 4, 0, out, [d = half(b), m = half(b + 2)](int v) { return d * static_cast<float>(v) + m; });
      break;
    case DType::q5_0:
      nibbles(b + 6, load_as<std::uint32_t>(b + 2), out,
              [d = half(b)](int v) { return d * static_cast<float>(v - 16); });
      break;
    case DType::q5_1:
      nibbles(b + 8, load_as<std::uint32_t>(b + 4), out,
              [d = half(b), m = half(b + 2)](int v) { return d * static_cast<float>(v) + m; });
      break;
    case DType::q8_0:
      for (unsigned i = 0; i < 32; ++i) out[i] = half(b) * static_cast<float>(static_cast<std::int8_t>(b[2 + i]));
      break;
    case DType::iq4_nl:
      nibbles(b + 2, 0, out, [d = half(b)](int v) { return d * static_cast<float>(kIq4Values[v]); });
      break;
    case DType::mxfp4:
      nibbles(b + 1, 0, out, [e = *b](int v) { return std::ldexp(static_cast<float>(kMxfp4Values[v]), e - 128); });
      break;
    case DType::q2_k:
      q2_k(b, out);
      break;
    case DType::q3_k:
      q3_k(b, out);
      break;
    case DType::q4_k:
      q4_k(b, nullptr, b + 16, out);
      break;
    case DType::q5_k:
      q4_k(b, b + 16, b + 48, out);
      break;
    case DType::q6_k:
      q6_k(b, out);
      break;
    case DType::iq4_xs:
      iq4_xs(b, out);
      break;
    default:
      break;
  }
}

}  // namespace

void dequantize_row(DType type, const std::byte* in, std::size_t cols, float* out) {
  const DTypeInfo& info = dtype_info(type);
  for (std::size_t k = 0; k < cols; k += info.block_values, in += info.block_bytes)
    dequantize_block(type, reinterpret_cast<const Byte*>(in), out + k);
}

}  // namespace snug
