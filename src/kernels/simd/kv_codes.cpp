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

/// The nearest bf16 that is not below (`up`) or not above x.
bf16_t outward_bf16(float x, bool up) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const bool away = (bits >> 31) != (up ? 1u : 0u);  // from zero
  if (away && (bits & 0xffffu)) bits += 0x10000u;
  return static_cast<bf16_t>(bits >> 16);
}

/// Codes of one pair of lines in `columns` columns; `units` is the pair's unit in the first of them.
void pack_pair(const bf16_t* tiles, const KvCodes& c, std::size_t columns, std::size_t shift, bf16_t* scales,
               bf16_t* leasts, std::byte* units) {
  const auto levels = static_cast<float>((1u << c.bits) - 1);
  F32x16 low = load_bf16(tiles), high = low;
  for (std::size_t column = 0; column < columns; ++column)
    for (std::size_t half = 0; half < 2; ++half) {
      const F32x16 x = load_bf16(tiles + column * c.column_stride + 16 * half);
      low = min(low, x);
      high = max(high, x);
    }
  alignas(64) float lows[16], highs[16];
  store(lows, low);
  store(highs, high);
  float least[2], inverse[2];
  for (std::size_t line = 0; line < 2; ++line) {
    for (std::size_t i = line; i < 16; i += 2) {
      lows[line] = lows[i] < lows[line] ? lows[i] : lows[line];
      highs[line] = highs[i] > highs[line] ? highs[i] : highs[line];
    }
    leasts[line] = outward_bf16(lows[line], false);
    least[line] = from_bf16(leasts[line]);
    scales[line] = outward_bf16((highs[line] - least[line]) / levels, true);
    const float scale = from_bf16(scales[line]);
    inverse[line] = scale > 0 ? 1.0f / scale : 0.0f;
  }
  const F32x16 from = alternate(least[0], least[1]), factor = alternate(inverse[0], inverse[1]), top = set1(levels);
  for (std::size_t column = 0; column < columns; ++column) {
    alignas(64) std::int16_t codes[32];
    for (std::size_t half = 0; half < 2; ++half) {
      const F32x16 x = load_bf16(tiles + column * c.column_stride + 16 * half);
      store_i16(codes + 16 * half, to_i32(min(mul(sub(x, from), factor), top)));
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
