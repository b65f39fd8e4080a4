// Codes of a KV page to bf16 tiles and back (layout: kernels/kv_codes.hpp).

#include "kernels/kv_codes.hpp"

#include "kernels/kv_tile.hpp"
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

/// Lanes a, b, a, b, ... of a pair.
F32x16 alternate(float a, float b) {
  alignas(64) float lanes[16];
  for (std::size_t i = 0; i < 16; i += 2) {
    lanes[i] = a;
    lanes[i + 1] = b;
  }
  return load(lanes);
}
F32x16 alternate(const bf16_t* pair) {
  return alternate(from_bf16(pair[0]), from_bf16(pair[1]));
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

/// The ends between which even steps meet a line best: from the extremes, and from closer ends, codes and ends are
/// fitted to each other in turn.
Span fitted(const bf16_t* line, std::size_t vectors, std::size_t stride, float levels) {
  alignas(64) float x[kPartTokens];
  for (std::size_t v = 0; v < vectors; ++v)
    for (std::size_t i = 0; i < 16; ++i) x[v * 16 + i] = from_bf16(line[v * stride + 2 * i]);
  const Span all = extremes(line, vectors, stride);
  const auto n = static_cast<float>(vectors * 16);
  Span best = all;
  float least_error = -1;
  for (float cut = 0; cut < 0.2f; cut += 0.05f) {
    const float range = all.high - all.low;
    Span span{all.low + cut * range, all.high - cut * range};
    for (int pass = 0; pass < 3; ++pass) {
      const float scale = (span.high - span.low) / levels;
      if (!(scale > 0)) break;
      F32x16 code_sum = zero(), square_sum = zero(), product_sum = zero(), x_sum = zero(), error = zero();
      for (std::size_t v = 0; v < vectors; ++v) {
        const F32x16 value = load(x + v * 16), from_low = sub(value, set1(span.low));
        const F32x16 code = max(min(round(mul(from_low, set1(1.0f / scale))), set1(levels)), zero());
        const F32x16 off = sub(from_low, mul(code, set1(scale)));
        code_sum = add(code_sum, code);
        square_sum = fma(code, code, square_sum);
        product_sum = fma(code, value, product_sum);
        x_sum = add(x_sum, value);
        error = fma(off, off, error);
      }
      if (const float e = hsum(error); least_error < 0 || e < least_error) {
        least_error = e;
        best = span;
      }
      const float c = hsum(code_sum), sum = hsum(x_sum), spread = n * hsum(square_sum) - c * c;
      if (!(spread > 0)) break;
      const float step = (n * hsum(product_sum) - c * sum) / spread;
      span.low = (sum - step * c) / n;
      span.high = span.low + step * levels;
    }
  }
  return best;
}

Span ends_of(const bf16_t* line, std::size_t vectors, std::size_t stride, const KvCodes& codes, float levels) {
  switch (codes.ends) {
    case KvCodes::Ends::half_means:
      return half_means(line, vectors, stride);
    case KvCodes::Ends::fitted:
      return fitted(line, vectors, stride, levels);
    default:
      return extremes(line, vectors, stride);
  }
}

void pack_group(const bf16_t* tiles, std::size_t vectors, std::size_t stride, const KvCodes& codes, std::byte* out) {
  const std::size_t bits = codes.bits;
  const auto levels = static_cast<float>((1u << bits) - 1);
  bf16_t head[4];
  float least[2], inverse[2];
  for (std::size_t line = 0; line < 2; ++line) {
    const Span span = ends_of(tiles + line, vectors, stride, codes, levels);
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

void add_low_rank_kv(const float* lines, const float* positions, std::size_t rank, const KvCodes& codes,
                     bf16_t* tiles) {
  F32x16 line[kMostKvRank];
  for (std::size_t p = 0; p < codes.pairs; ++p, lines += 2 * rank) {
    for (std::size_t r = 0; r < rank; ++r) line[r] = alternate(lines[2 * r], lines[2 * r + 1]);
    for (std::size_t half = 0; half < 2 * codes.vectors; ++half) {
      bf16_t* at = tiles + p * codes.pair_stride + half / 2 * codes.vector_stride + half % 2 * 16;
      F32x16 x = load_bf16(at);
      for (std::size_t r = 0; r < rank; ++r) x = fma(line[r], load(positions + (r * 2 * codes.vectors + half) * 16), x);
      store_bf16(at, x);
    }
  }
}

}  // namespace snug::SNUG_ISA_NS
