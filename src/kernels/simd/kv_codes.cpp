// Codes of a KV page to bf16 tiles and back (layout: kernels/kv_codes.hpp).

#include "kernels/kv_codes.hpp"

#include <utility>

#include "kernels/kv_tile.hpp"
#include "kernels/simd/functions.hpp"
#include "kernels/simd/words.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

/// Lanes a, b, a, b, ...
F32x16 alternate(float a, float b) {
  alignas(64) float lanes[16];
  for (std::size_t i = 0; i < 16; i += 2) lanes[i] = a, lanes[i + 1] = b;
  return load(lanes);
}

/// Columns that share scales.
struct Group {
  std::size_t first, columns, column_bytes;
  const bf16_t* scales;  ///< [depth], then least values
  const std::byte* codes;
  bf16_t* tiles;
};

template <class F>
void for_each_group(const std::byte* page, const KvCodes& c, bf16_t* tiles, F&& f) {
  const std::size_t column_bytes = c.column_bytes();
  const std::byte* codes = page + c.column_offset(0);
  for (std::size_t first = 0; first < c.columns; first += c.group) {
    const std::size_t columns = c.columns - first < c.group ? c.columns - first : c.group;
    f(Group{first, columns, column_bytes, reinterpret_cast<const bf16_t*>(page), codes + first * column_bytes,
            tiles + first * c.column_stride});
    page += c.head_bytes();
  }
}

#if defined(SNUG_ISA_avx512)

/// Codes of at most 4 bits are looked up: 32 bf16 are all values of 32 >> kBits lines.
template <std::size_t kBits>
struct Values {
  static constexpr int kCodes = 1 << kBits, kPairs = 16 / kCodes;
  __m512i table;

  /// Of lines among 16 (scales and least values), from the pair kFirst on and further by `offset` lines.
  template <int kFirst>
  SNUG_INLINE void fill(__m512 scale, __m512 least, __m512i offset) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 code = _mm512_cvtepi32_ps(_mm512_and_si512(lane, _mm512_set1_epi32(kCodes - 1)));
    const __m512i line = _mm512_add_epi32(_mm512_srli_epi32(lane, kBits), offset);
    const __m512i low = _mm512_add_epi32(line, _mm512_set1_epi32(2 * kFirst));
    const __m512i high = _mm512_add_epi32(line, _mm512_set1_epi32(2 * kFirst + 16 / kCodes));
    const __m512 a = _mm512_fmadd_ps(code, _mm512_permutexvar_ps(low, scale), _mm512_permutexvar_ps(low, least));
    const __m512 b = _mm512_fmadd_ps(code, _mm512_permutexvar_ps(high, scale), _mm512_permutexvar_ps(high, least));
    table = (__m512i)_mm512_cvtne2ps_pbh(b, a);
  }
  /// Of the pair of lines kPair in the table, whose codes are the words' lowest bits.
  template <int kPair>
  SNUG_INLINE __m512i of(__m512i words) const {
    const __m512i mask = _mm512_set1_epi16(kCodes - 1);
    const __m512i line = _mm512_set1_epi32(2 * kPair * kCodes | (2 * kPair + 1) * kCodes << 16);
    return _mm512_permutexvar_epi16(_mm512_ternarylogic_epi32(words, mask, line, 0xea), table);  // words & mask | line
  }
};

/// The pairs kPair of a unit: those of one table after the other.
template <std::size_t kBits, int... kPair>
SNUG_INLINE void unpack_unit(__m512i words, const Values<kBits>* values, std::size_t stride, bf16_t* out,
                             std::integer_sequence<int, kPair...>) {
  constexpr int kPairs = Values<kBits>::kPairs, kShift = static_cast<int>(kBits);
  (_mm512_storeu_si512(out + static_cast<std::size_t>(kPair) * stride,
                       values[kPair / kPairs].template of<kPair % kPairs>(_mm512_srli_epi16(words, kPair * kShift))),
   ...);
}

/// The lines of a group from `line` on that a unit covers, kPairs pairs.
template <std::size_t kBits, std::size_t kPairs, int... kTable>
SNUG_INLINE void unpack_lines(const Group& group, const KvCodes& c, std::size_t line,
                              std::integer_sequence<int, kTable...>) {
  constexpr int kTablePairs = Values<kBits>::kPairs;
  const std::size_t vector = line / 16 * 16;
  const __m512i offset = _mm512_set1_epi32(static_cast<int>(line - vector));
  Values<kBits> values[sizeof...(kTable)];
  (values[kTable].template fill<kTable * kTablePairs % 8>(
       load_bf16(group.scales + vector + kTable * kTablePairs / 8 * 16).v,
       load_bf16(group.scales + c.depth + vector + kTable * kTablePairs / 8 * 16).v, offset),
   ...);
  const std::byte* unit = group.codes + line / 2 / (16 / kBits) * KvCodes::kUnitBytes;
  bf16_t* out = group.tiles + line / 2 * c.pair_stride;
  for (std::size_t i = 0; i < group.columns; ++i, unit += group.column_bytes, out += c.column_stride)
    unpack_unit<kBits>(_mm512_loadu_si512(unit), values, c.pair_stride, out,
                       std::make_integer_sequence<int, static_cast<int>(kPairs)>{});
}

template <std::size_t kBits>
void unpack_page(const std::byte* page, const KvCodes& c, bf16_t* tiles) {
  constexpr std::size_t kUnitPairs = 16 / kBits, kTablePairs = static_cast<std::size_t>(Values<kBits>::kPairs);
  for_each_group(page, c, tiles, [&](const Group& group) {
    std::size_t line = 0;
    for (; line + 2 * kUnitPairs <= c.depth; line += 2 * kUnitPairs)
      unpack_lines<kBits, kUnitPairs>(group, c, line,
                                      std::make_integer_sequence<int, static_cast<int>(kUnitPairs / kTablePairs)>{});
    // Depths are multiples of 16, and so are what units cover but for 1 bit.
    if (line < c.depth)
      unpack_lines<kBits, 8>(group, c, line, std::make_integer_sequence<int, static_cast<int>(8 / kTablePairs)>{});
  });
}

#endif

/// Factors of corrections as f32.
struct Factors {
  alignas(64) float lines[KvCodes::kRank][kMostHeadDim], positions[KvCodes::kRank][kMostHeadDim];

  Factors(const std::byte* page, const KvCodes& c) {
    const auto* scales = reinterpret_cast<const bf16_t*>(page + c.factor_scales());
    const auto* factor = reinterpret_cast<const std::int8_t*>(page + c.factors());
    const auto widen = [&](std::size_t n, float* out) {
      const F32x16 scale = set1(widen_bf16(*scales++));
      for (std::size_t i = 0; i < n; i += 16) store(out + i, mul(to_f32(load_i8(factor + i)), scale));
      factor += n;
    };
    for (auto& line : lines) widen(c.depth, line);
    for (auto& position : positions) widen(c.positions(), position);
  }
};

/// value = least + code * scale, and the product of rank kRank.
template <std::size_t kRank>
void unpack_by_line(const std::byte* page, const KvCodes& c, const Factors* factors, bf16_t* tiles) {
  const std::size_t unit_pairs = c.unit_pairs(), stride = c.column_stride;
  const U32x16 mask = splat((1u << c.bits) - 1);
  for_each_group(page, c, tiles, [&](const Group& group) {
    for (std::size_t pair = 0; pair < c.depth / 2; ++pair) {
      const auto both = [&](const bf16_t* x, std::size_t i) { return set1(widen_bf16(x[2 * pair + i])); };
      const F32x16 scale[2] = {both(group.scales, 0), both(group.scales, 1)};
      const F32x16 least[2] = {both(group.scales + c.depth, 0), both(group.scales + c.depth, 1)};
      const std::byte* unit = group.codes + pair / unit_pairs * KvCodes::kUnitBytes;
      const auto shift = static_cast<std::uint32_t>(pair % unit_pairs * c.bits);
      const U32x16 shifts[2] = {splat(shift), splat(shift + 16)};
      bf16_t* out = group.tiles + pair * c.pair_stride;
      F32x16 line[kRank + 1][2];
      for (std::size_t r = 0; r < kRank; ++r)
        for (std::size_t side = 0; side < 2; ++side) line[r][side] = set1(factors->lines[r][2 * pair + side]);
      for (std::size_t i = 0, n = group.columns; i < n; ++i, unit += group.column_bytes, out += stride) {
        const U32x16 words = load_u32(unit);
        F32x16 even = fma(to_f32(as_i32(words >> shifts[0] & mask)), scale[0], least[0]);
        F32x16 odd = fma(to_f32(as_i32(words >> shifts[1] & mask)), scale[1], least[1]);
        for (std::size_t r = 0; r < kRank; ++r) {
          const F32x16 position = load(factors->positions[r] + 16 * (group.first + i));
          even = fma(line[r][0], position, even);
          odd = fma(line[r][1], position, odd);
        }
        store_pairs(out, even, odd);
      }
    }
  });
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
      x[i] = widen_bf16(tiles[i / 16 * c.column_stride + i % 16 * 2 + line]);
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
    least[line] = widen_bf16(leasts[line]);
    scales[line] = nearest_bf16((spans.high[line] - least[line]) / levels);
    const float scale = widen_bf16(scales[line]);
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

void unpack_codes(const std::byte* page, const KvCodes& c, bf16_t* tiles) {
  if (c.low_rank) {
    const Factors factors(page, c);
    return unpack_by_line<KvCodes::kRank>(page, c, &factors, tiles);
  }
#if defined(SNUG_ISA_avx512)
  if (c.bits == 1) return unpack_page<1>(page, c, tiles);
  if (c.bits == 2) return unpack_page<2>(page, c, tiles);
  if (c.bits == 4) return unpack_page<4>(page, c, tiles);
#endif
  unpack_by_line<0>(page, c, nullptr, tiles);
}

void add_outliers(const std::byte* page, const KvCodes& c, bf16_t* tiles) {
  const auto* values = reinterpret_cast<const bf16_t*>(page + c.outlier_values());
  const std::byte* places = page + c.outlier_places();
  const std::size_t place_bytes = c.place_bytes(), positions = c.positions();
  for (std::size_t line = 0; line < c.depth; ++line)
    for (std::size_t i = 0; i < c.outliers; ++i, places += place_bytes, ++values) {
      const std::size_t at = c.place(places);
      if (at >= positions) continue;  // a damaged page must not lead elsewhere
      bf16_t& to = tiles[c.index(line, at)];
      to = nearest_bf16(widen_bf16(to) + widen_bf16(*values));
    }
}

}  // namespace

void unpack_kv(const std::byte* page, const KvCodes& c, bf16_t* tiles) {
  unpack_codes(page, c, tiles);
  if (c.outliers > 0) add_outliers(page, c, tiles);
}

void kv_excess(const std::byte* page, const KvCodes& c, float factor, bf16_t* out) {
  for (std::size_t group = 0; group < c.groups(); ++group, page += c.head_bytes(), out += c.depth)
    for (std::size_t i = 0; i < c.depth; i += 16) {
      const F32x16 scale = load_bf16(reinterpret_cast<const bf16_t*>(page) + i);
      store_bf16(out + i, mul(mul(scale, scale), set1(factor)));
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
