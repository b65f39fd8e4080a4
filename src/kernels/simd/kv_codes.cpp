// Codes of a KV page to bf16 tiles and back (layout: kernels/kv_codes.hpp).

#include "kernels/kv_codes.hpp"

#include "kernels/simd/functions.hpp"
#include "kernels/simd/words.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

float from_bf16(bf16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

/// Lanes a, b, a, b, ...
F32x16 alternate(float a, float b) {
  alignas(64) float lanes[16];
  for (std::size_t i = 0; i < 16; i += 2) lanes[i] = a, lanes[i + 1] = b;
  return load(lanes);
}

/// A pair of lines of one group, ready to turn codes into values.
struct LinePair {
  F32x16 scale, least;
#if defined(SNUG_ISA_avx512)
  /// All values that codes of at most 4 bits can stand for: 16 of the first line, 16 of the second.
  __m512i values;
#endif

  LinePair(const bf16_t* scales, const bf16_t* leasts, std::size_t bits) {
    const float s[2] = {from_bf16(scales[0]), from_bf16(scales[1])},
                l[2] = {from_bf16(leasts[0]), from_bf16(leasts[1])};
#if defined(SNUG_ISA_avx512)
    if (bits <= 4) {
      const __m512 code = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      const __m512 first = _mm512_fmadd_ps(code, _mm512_set1_ps(s[0]), _mm512_set1_ps(l[0]));
      const __m512 second = _mm512_fmadd_ps(code, _mm512_set1_ps(s[1]), _mm512_set1_ps(l[1]));
      values = (__m512i)_mm512_cvtne2ps_pbh(second, first);
      scale = least = zero();
      return;
    }
    values = _mm512_setzero_si512();
#else
    (void)bits;
#endif
    scale = alternate(s[0], s[1]);
    least = alternate(l[0], l[1]);
  }

  /// Codes (words below 1 << bits) to 32 bf16.
  SNUG_INLINE void store_values(U16x32 code, std::size_t bits, bf16_t* out) const {
#if defined(SNUG_ISA_avx512)
    if (bits <= 4) {
      const __m512i odd = _mm512_set1_epi32(0x00100000);
      _mm512_storeu_si512(out, _mm512_permutexvar_epi16(_mm512_or_si512(reinterpret_cast<__m512i>(code), odd), values));
      return;
    }
#else
    (void)bits;
#endif
    for (std::size_t half = 0; half < 2; ++half)
      store_bf16(out + 16 * half, fma(to_f32(half_words(code, half)), scale, least));
  }
};

template <std::size_t kBits>
void unpack_page(const std::byte* page, const KvCodes& c, bf16_t* tiles) {
  constexpr std::size_t kUnitPairs = 16 / kBits;
  const U16x32 mask = splat_word((1u << kBits) - 1);
  for (std::size_t first = 0; first < c.columns; first += c.group) {
    const std::size_t last = first + c.group < c.columns ? first + c.group : c.columns;
    const auto* scales = reinterpret_cast<const bf16_t*>(page + first / c.group * c.head_bytes());
    for (std::size_t pair = 0; pair < c.depth / 2; ++pair) {
      const LinePair lines(scales + 2 * pair, scales + c.depth + 2 * pair, kBits);
      const std::size_t unit = pair / kUnitPairs * KvCodes::kUnitBytes, shift = pair % kUnitPairs * kBits;
      for (std::size_t column = first; column < last; ++column) {
        const auto words = load_vector<U16x32>(page + c.column_offset(column) + unit);
        lines.store_values(words >> splat_word(static_cast<unsigned>(shift)) & mask, kBits,
                           tiles + column * c.column_stride + pair * c.pair_stride);
      }
    }
  }
}

bf16_t nearest_bf16(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return static_cast<bf16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/// Of the two lines of a pair.
struct Spans {
  float low[2], high[2];
};

/// f(16 values of the pair, lines alternating) for all of a group.
template <class F>
void for_each_vector(const bf16_t* tiles, const KvCodes& c, std::size_t columns, F&& f) {
  for (std::size_t column = 0; column < columns; ++column)
    for (std::size_t half = 0; half < 2; ++half) f(load_bf16(tiles + column * c.column_stride + 16 * half));
}

/// Folds every second lane.
template <class F>
void fold_lines(F32x16 v, F&& f, float* out) {
  alignas(64) float lanes[16];
  store(lanes, v);
  for (std::size_t line = 0; line < 2; ++line) {
    out[line] = lanes[line];
    for (std::size_t i = line + 2; i < 16; i += 2) out[line] = f(out[line], lanes[i]);
  }
}

Spans extremes(const bf16_t* tiles, const KvCodes& c, std::size_t columns) {
  F32x16 low = load_bf16(tiles), high = low;
  for_each_vector(tiles, c, columns, [&](F32x16 x) {
    low = min(low, x);
    high = max(high, x);
  });
  Spans spans;
  fold_lines(low, [](float a, float b) { return a < b ? a : b; }, spans.low);
  fold_lines(high, [](float a, float b) { return a > b ? a : b; }, spans.high);
  return spans;
}

/// The means of a line's values below and from their mean on.
Spans half_means(const bf16_t* tiles, const KvCodes& c, std::size_t columns) {
  const auto plus = [](float a, float b) { return a + b; };
  const auto n = static_cast<float>(columns * 16);
  F32x16 sum = zero(), low = zero(), below = zero();
  for_each_vector(tiles, c, columns, [&](F32x16 x) { sum = add(sum, x); });
  float all[2], low_sum[2], low_count[2];
  fold_lines(sum, plus, all);
  const F32x16 middle = alternate(all[0] / n, all[1] / n);
  for_each_vector(tiles, c, columns, [&](F32x16 x) {
    const Mask16 is_low = less(x, middle);
    low = add(low, select(is_low, x, zero()));
    below = add(below, select(is_low, set1(1.0f), zero()));
  });
  fold_lines(low, plus, low_sum);
  fold_lines(below, plus, low_count);
  Spans spans;
  for (std::size_t line = 0; line < 2; ++line) {
    const bool even = low_count[line] == 0 || low_count[line] == n;
    spans.low[line] = even ? all[line] / n : low_sum[line] / low_count[line];
    spans.high[line] = even ? all[line] / n : (all[line] - low_sum[line]) / (n - low_count[line]);
  }
  return spans;
}

/// The ends between which even steps meet a line best: from its extremes, and from closer ends, codes and ends are
/// fitted to each other in turn. REQUIRES: columns <= 16.
Spans fitted(const bf16_t* tiles, const KvCodes& c, std::size_t columns, float levels) {
  Spans best = extremes(tiles, c, columns);
  const auto n = static_cast<float>(columns * 16);
  for (std::size_t line = 0; line < 2; ++line) {
    alignas(64) float x[16 * 16];
    for (std::size_t i = 0; i < columns * 16; ++i)
      x[i] = from_bf16(tiles[i / 16 * c.column_stride + i % 16 * 2 + line]);
    const float lowest = best.low[line], range = best.high[line] - lowest;
    float least_error = -1;
    for (float cut = 0; cut < 0.2f; cut += 0.05f) {
      float low = lowest + cut * range, scale = range * (1 - 2 * cut) / levels;
      for (int pass = 0; pass < 3 && scale > 0; ++pass) {
        F32x16 code_sum = zero(), square_sum = zero(), product_sum = zero(), x_sum = zero(), error = zero();
        for (std::size_t i = 0; i < columns * 16; i += 16) {
          const F32x16 value = load(x + i), from_low = sub(value, set1(low));
          const F32x16 code = max(zero(), min(round(mul(from_low, set1(1.0f / scale))), set1(levels)));
          const F32x16 off = sub(from_low, mul(code, set1(scale)));
          code_sum = add(code_sum, code);
          square_sum = fma(code, code, square_sum);
          product_sum = fma(code, value, product_sum);
          x_sum = add(x_sum, value);
          error = fma(off, off, error);
        }
        if (const float e = hsum(error); least_error < 0 || e < least_error) {
          least_error = e;
          best.low[line] = low;
          best.high[line] = low + scale * levels;
        }
        const float codes = hsum(code_sum), sum = hsum(x_sum), spread = n * hsum(square_sum) - codes * codes;
        if (!(spread > 0)) break;
        scale = (n * hsum(product_sum) - codes * sum) / spread;
        low = (sum - scale * codes) / n;
      }
    }
  }
  return best;
}

Spans spans_of(const bf16_t* tiles, const KvCodes& c, std::size_t columns, float levels) {
  switch (c.ends) {
    case KvCodes::Ends::half_means:
      return half_means(tiles, c, columns);
    case KvCodes::Ends::fitted:
      return fitted(tiles, c, columns, levels);
    default:
      return extremes(tiles, c, columns);
  }
}

/// Codes of one pair of lines in `columns` columns; `units` is the pair's unit in the first of them.
void pack_pair(const bf16_t* tiles, const KvCodes& c, std::size_t columns, std::size_t shift, bf16_t* scales,
               bf16_t* leasts, std::byte* units) {
  const auto levels = static_cast<float>((1u << c.bits) - 1);
  const Spans spans = spans_of(tiles, c, columns, levels);
  float least[2], inverse[2];
  for (std::size_t line = 0; line < 2; ++line) {
    leasts[line] = nearest_bf16(spans.low[line]);
    least[line] = from_bf16(leasts[line]);
    scales[line] = nearest_bf16((spans.high[line] - least[line]) / levels);
    const float scale = from_bf16(scales[line]);
    inverse[line] = scale > 0 ? 1.0f / scale : 0.0f;
  }
  const F32x16 from = alternate(least[0], least[1]), factor = alternate(inverse[0], inverse[1]), top = set1(levels);
  for (std::size_t column = 0; column < columns; ++column) {
    alignas(64) std::int16_t codes[32];
    for (std::size_t half = 0; half < 2; ++half) {
      const F32x16 x = load_bf16(tiles + column * c.column_stride + 16 * half);
      store_i16(codes + 16 * half, to_i32(max(zero(), min(mul(sub(x, from), factor), top))));
    }
    std::byte* unit = units + column * c.column_bytes();
    const U16x32 merged = load_vector<U16x32>(unit) | load_vector<U16x32>(codes)
                                                          << splat_word(static_cast<unsigned>(shift));
    __builtin_memcpy(unit, &merged, sizeof merged);
  }
}

}  // namespace

void unpack_kv(const std::byte* page, const KvCodes& codes, bf16_t* tiles) {
  switch (codes.bits) {
    case 1:
      return unpack_page<1>(page, codes, tiles);
    case 2:
      return unpack_page<2>(page, codes, tiles);
    case 4:
      return unpack_page<4>(page, codes, tiles);
    default:
      return unpack_page<8>(page, codes, tiles);
  }
}

void pack_kv(const bf16_t* tiles, const KvCodes& c, std::byte* page) {
  __builtin_memset(page + c.column_offset(0), 0, c.bytes() - c.column_offset(0));
  for (std::size_t first = 0; first < c.columns; first += c.group) {
    const std::size_t columns = first + c.group < c.columns ? c.group : c.columns - first;
    auto* scales = reinterpret_cast<bf16_t*>(page + first / c.group * c.head_bytes());
    for (std::size_t pair = 0; pair < c.depth / 2; ++pair)
      pack_pair(tiles + first * c.column_stride + pair * c.pair_stride, c, columns, pair % c.unit_pairs() * c.bits,
                scales + 2 * pair, scales + c.depth + 2 * pair,
                page + c.column_offset(first) + pair / c.unit_pairs() * KvCodes::kUnitBytes);
  }
}

}  // namespace snug::SNUG_ISA_NS
