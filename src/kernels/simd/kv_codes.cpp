// Codes of a KV page to bf16 tiles and back (layout: kernels/kv_codes.hpp).

#include "kernels/kv_codes.hpp"

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

float from_bf16(bf16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

/// Lanes a, b, a, b, ... of a pair of bf16.
F32x16 alternate(const bf16_t* pair) {
  alignas(64) float lanes[16];
  for (std::size_t i = 0; i < 16; ++i) lanes[i] = from_bf16(pair[i % 2]);
  return load(lanes);
}

template <std::size_t kBits>
void unpack_widened(const std::byte* in, std::size_t vectors, std::size_t stride, bf16_t* out) {
  bf16_t head[4];
  __builtin_memcpy(head, in, sizeof head);
  const F32x16 scale = alternate(head), least = alternate(head + 2);
  constexpr std::size_t kPerUnit = 8 / kBits;  // of 16 values
  const std::byte* units = in + KvCodes::kHeadBytes;
  for (std::size_t half = 0; half < 2 * vectors; ++half) {
    const U32x16 unit = widen(load_vector<U8x16>(units + half / kPerUnit * KvCodes::kUnitBytes));
    const U32x16 code = unit >> splat(static_cast<std::uint32_t>(half % kPerUnit * kBits)) & splat((1u << kBits) - 1);
    store_bf16(out + half / 2 * stride + half % 2 * 16, fma(to_f32(code), scale, least));
  }
}

#if defined(SNUG_ISA_avx512)

/// All values that codes of at most 4 bits can stand for are one register: 16 of the first line, 16 of the second.
template <std::size_t kBits>
void unpack_group(const std::byte* in, std::size_t vectors, std::size_t stride, bf16_t* out) {
  bf16_t head[4];
  __builtin_memcpy(head, in, sizeof head);
  const __m512 code = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 first = _mm512_fmadd_ps(code, _mm512_set1_ps(from_bf16(head[0])), _mm512_set1_ps(from_bf16(head[2])));
  const __m512 second = _mm512_fmadd_ps(code, _mm512_set1_ps(from_bf16(head[1])), _mm512_set1_ps(from_bf16(head[3])));
  const __m512i values = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  const __m512i odd = _mm512_set1_epi32(0x00100000), mask = _mm512_set1_epi16((1 << kBits) - 1);
  constexpr std::size_t kPerUnit = 4 / kBits;  // vectors
  in += KvCodes::kHeadBytes;
  for (std::size_t v = 0; v < vectors; in += KvCodes::kUnitBytes) {
    const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
    // The upper 16 lanes want the codes behind those of the lower 16.
    const __m512i wide = _mm512_cvtepu8_epi16(bytes);
    for (std::size_t i = 0; i < kPerUnit && v < vectors; ++i, ++v, out += stride) {
      const auto low = static_cast<short>(2 * i * kBits), high = static_cast<short>((2 * i + 1) * kBits);
      const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi16(low), _mm256_set1_epi16(high), 1);
      const __m512i index = _mm512_or_si512(_mm512_and_si512(_mm512_srlv_epi16(wide, shift), mask), odd);
      _mm512_storeu_si512(out, _mm512_permutexvar_epi16(index, values));
    }
  }
}

#else

template <std::size_t kBits>
void unpack_group(const std::byte* in, std::size_t vectors, std::size_t stride, bf16_t* out) {
  unpack_widened<kBits>(in, vectors, stride, out);
}

#endif

/// f(codes of a group, its vectors, its tiles) for each group of a page.
template <class Code, class Tile, class F>
void for_each_group(Code* page, const KvCodes& codes, Tile* tiles, F&& f) {
  for (std::size_t p = 0; p < codes.pairs; ++p)
    for (std::size_t v = 0; v < codes.vectors; v += codes.group) {
      const std::size_t n = codes.vectors - v < codes.group ? codes.vectors - v : codes.group;
      f(page, n, tiles + p * codes.pair_stride + v * codes.vector_stride);
      page += codes.group_bytes(n);
    }
}

template <void (*kUnpack)(const std::byte*, std::size_t, std::size_t, bf16_t*)>
void unpack_page(const std::byte* in, const KvCodes& codes, bf16_t* tiles) {
  for_each_group(in, codes, tiles, [&](const std::byte* group, std::size_t vectors, bf16_t* out) {
    kUnpack(group, vectors, codes.vector_stride, out);
  });
}

bf16_t nearest_bf16(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return static_cast<bf16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

struct Span {
  float low, high;
};

/// Of a line: every second value of its vectors.
Span extremes(const bf16_t* line, std::size_t vectors, std::size_t stride) {
  Span span{from_bf16(*line), from_bf16(*line)};
  for (std::size_t v = 0; v < vectors; ++v)
    for (std::size_t i = 0; i < 32; i += 2) {
      const float x = from_bf16(line[v * stride + i]);
      span.low = x < span.low ? x : span.low;
      span.high = x > span.high ? x : span.high;
    }
  return span;
}

/// The means of a line's values below and from their mean on.
Span half_means(const bf16_t* line, std::size_t vectors, std::size_t stride) {
  float middle = 0, below = 0;
  Span sums{0, 0};
  const auto n = static_cast<float>(vectors * 16);
  for (std::size_t v = 0; v < vectors; ++v)
    for (std::size_t i = 0; i < 32; i += 2) middle += from_bf16(line[v * stride + i]);
  middle /= n;
  for (std::size_t v = 0; v < vectors; ++v)
    for (std::size_t i = 0; i < 32; i += 2) {
      const float x = from_bf16(line[v * stride + i]);
      const bool low = x < middle;
      below += low ? 1.0f : 0.0f;
      (low ? sums.low : sums.high) += x;
    }
  if (below == 0 || below == n) return {middle, middle};
  return {sums.low / below, sums.high / (n - below)};
}

void pack_group(const bf16_t* tiles, std::size_t vectors, std::size_t stride, const KvCodes& codes, std::byte* out) {
  const std::size_t bits = codes.bits;
  const auto levels = static_cast<float>((1u << bits) - 1);
  bf16_t head[4];
  float least[2], inverse[2];
  for (std::size_t line = 0; line < 2; ++line) {
    const Span span =
        codes.half_means ? half_means(tiles + line, vectors, stride) : extremes(tiles + line, vectors, stride);
    head[2 + line] = nearest_bf16(span.low);
    least[line] = from_bf16(head[2 + line]);
    head[line] = nearest_bf16((span.high - least[line]) / levels);
    const float scale = from_bf16(head[line]);
    inverse[line] = scale > 0 ? 1.0f / scale : 0.0f;
  }
  __builtin_memcpy(out, head, sizeof head);
  out += KvCodes::kHeadBytes;
  const std::size_t per_unit = 8 / bits;
  __builtin_memset(out, 0, (2 * vectors + per_unit - 1) / per_unit * KvCodes::kUnitBytes);
  auto* units = reinterpret_cast<std::uint8_t*>(out);
  for (std::size_t half = 0; half < 2 * vectors; ++half)
    for (std::size_t i = 0; i < 16; ++i) {
      const float x = from_bf16(tiles[half / 2 * stride + half % 2 * 16 + i]);
      const float scaled = (x - least[i % 2]) * inverse[i % 2] + 0.5f;
      const auto code = static_cast<std::uint32_t>(scaled < levels ? scaled > 0 ? scaled : 0.0f : levels);
      units[half / per_unit * KvCodes::kUnitBytes + i] |= static_cast<std::uint8_t>(code << (half % per_unit * bits));
    }
}

}  // namespace

void unpack_kv(const std::byte* in, const KvCodes& codes, bf16_t* tiles) {
  switch (codes.bits) {
    case 1:
      return unpack_page<unpack_group<1>>(in, codes, tiles);
    case 2:
      return unpack_page<unpack_group<2>>(in, codes, tiles);
    case 4:
      return unpack_page<unpack_group<4>>(in, codes, tiles);
    default:
      return unpack_page<unpack_widened<8>>(in, codes, tiles);
  }
}

void pack_kv(const bf16_t* tiles, const KvCodes& codes, std::byte* out) {
  for_each_group(out, codes, tiles, [&](std::byte* group, std::size_t vectors, const bf16_t* in) {
    pack_group(in, vectors, codes.vector_stride, codes, group);
  });
}

void scale_tile(const bf16_t* tile, std::size_t n, const float* factors, bf16_t* out) {
  const F32x16 low = load(factors), high = load(factors + 16);
  for (std::size_t i = 0; i < n; i += 32) {
    store_bf16(out + i, mul(load_bf16(tile + i), low));
    store_bf16(out + i + 16, mul(load_bf16(tile + i + 16), high));
  }
}

}  // namespace snug::SNUG_ISA_NS
