#pragma once
/// The two products of attention over coded pages (kernels/kv_codes.hpp), without unpacking them into memory.
///
/// value = least + code * scale, so sum_i x_i value_i = sum_i x_i least_i + sum_i (x_i scale_i) code_i. Per page, group
/// and query, x_i scale_i are rounded to 14 bits and a sign (relative to their largest: far finer than any code), and
/// the products with the codes are exact integers.

#include <array>
#include <utility>

#include "kernels/attention_scratch.hpp"
#include "kernels/kv_codes.hpp"
#include "kernels/simd/words.hpp"

namespace snug::SNUG_ISA_NS {

/// Queries and columns whose sums stay in registers.
#if defined(SNUG_ISA_avx512)
inline constexpr std::size_t kCodeQueries = 12, kCodeColumns = 2;
#else
inline constexpr std::size_t kCodeQueries = 4, kCodeColumns = 1;
#endif

struct CodeArgs {
  const std::byte* column;  ///< its first unit
  const std::byte* ahead;   ///< the same of the next page: only prefetched
  std::size_t column_bytes, units;
  const std::int16_t* x;       ///< [Q][kCodedDepth]
  const float *factor, *base;  ///< [Q]: out = base + factor * integer sum
  float* out;                  ///< [Q][out_stride], 16 per column
  std::size_t out_stride;
  bool add;  ///< to what is in out
};

template <std::size_t kBits, std::size_t Q, std::size_t T>
void multiply_codes(const CodeArgs& args) {
  constexpr std::size_t kUnitPairs = 16 / kBits;
  I32x16 acc[Q][T];
#pragma GCC unroll 16
  for (std::size_t q = 0; q < Q; ++q)
#pragma GCC unroll 2
    for (std::size_t t = 0; t < T; ++t) acc[q][t] = set1_i32(0);
  const U16x32 mask = splat_word((1u << kBits) - 1);
  const std::int16_t* x = args.x;
  for (std::size_t unit = 0; unit < args.units; ++unit, x += 2 * kUnitPairs) {
    U16x32 words[T];
#pragma GCC unroll 2
    for (std::size_t t = 0; t < T; ++t) {
      const std::size_t at = t * args.column_bytes + unit * KvCodes::kUnitBytes;
      words[t] = load_vector<U16x32>(args.column + at);
      __builtin_prefetch(args.ahead + at);
    }
#pragma GCC unroll 16
    for (std::size_t pair = 0; pair < kUnitPairs; ++pair) {
      U16x32 code[T];
#pragma GCC unroll 2
      for (std::size_t t = 0; t < T; ++t)
        code[t] = pair + 1 == kUnitPairs ? words[t] >> splat_word(16 - kBits)
                                         : words[t] >> splat_word(static_cast<unsigned>(pair * kBits)) & mask;
#pragma GCC unroll 16
      for (std::size_t q = 0; q < Q; ++q)
#pragma GCC unroll 2
        for (std::size_t t = 0; t < T; ++t) acc[q][t] = dot_words(acc[q][t], code[t], x + q * kCodedDepth + 2 * pair);
    }
  }
#pragma GCC unroll 16
  for (std::size_t q = 0; q < Q; ++q)
#pragma GCC unroll 2
    for (std::size_t t = 0; t < T; ++t) {
      float* out = args.out + q * args.out_stride + 16 * t;
      const F32x16 sum = fma(to_f32(acc[q][t]), set1(args.factor[q]), set1(args.base[q]));
      store(out, args.add ? snug::SNUG_ISA_NS::add(load(out), sum) : sum);
    }
}

using CodeFunction = void (*)(const CodeArgs&);

/// By (queries - 1) * kCodeColumns + columns - 1.
template <std::size_t kBits, std::size_t... I>
constexpr std::array<CodeFunction, sizeof...(I)> code_functions(std::index_sequence<I...>) {
  return {multiply_codes<kBits, I / kCodeColumns + 1, I % kCodeColumns + 1>...};
}
template <std::size_t kBits>
inline constexpr auto kCodeTable = code_functions<kBits>(std::make_index_sequence<kCodeQueries * kCodeColumns>{});

inline CodeFunction code_function(std::size_t bits, std::size_t queries, std::size_t columns) {
  const std::size_t at = (queries - 1) * kCodeColumns + columns - 1;
  return bits == 1   ? kCodeTable<1>[at]
         : bits == 2 ? kCodeTable<2>[at]
         : bits == 4 ? kCodeTable<4>[at]
                     : kCodeTable<8>[at];
}

/// The largest product of a query with a group's scales.
SNUG_INLINE float largest_product(const float* x, const float* scale, std::size_t depth) {
  F32x16 top = zero();
  for (std::size_t i = 0; i < depth; i += 16) top = max(top, abs(mul(load(x + i), load(scale + i))));
  return hmax(top);
}

/// x of one query times a group's scales, as integers; `depth` lines. No product is larger than `most`. `excess`:
/// KvCodes'.
SNUG_INLINE void scale_query(const float* x, const float* scale, const float* least, std::size_t depth, float most,
                             float excess, std::int16_t* out, float& factor, float& base) {
  constexpr float kMost = 16383;
  factor = most / kMost;
  const F32x16 inverse = set1(most > 0 ? kMost / most : 0.0f);
  F32x16 sum = zero(), squares = zero();
  for (std::size_t i = 0; i < depth; i += 16) {
    const F32x16 value = load(x + i), product = mul(value, load(scale + i));
    sum = fma(value, load(least + i), sum);
    squares = fma(product, product, squares);
    store_i16(out + i, to_i32(mul(product, inverse)));
  }
  base = hsum(fma(squares, set1(-0.5f * excess), sum));
  if (depth % 32) store_i16(out + depth, set1_i32(0));  // a unit covers 32 lines at most
}

/// A group's scales and least values of the lines [line, line + depth), as f32.
/// Returns the largest scale (scales are not negative).
SNUG_INLINE float load_heads(const std::byte* page, const std::byte* ahead, const KvCodes& codes, std::size_t group,
                             std::size_t line, std::size_t depth, CodedScratch& scratch) {
  const std::size_t at = group * codes.head_bytes() + line * sizeof(bf16_t);
  const auto* head = reinterpret_cast<const bf16_t*>(page + at);
  F32x16 top = zero();
  for (std::size_t i = 0; i < depth; i += 16) {
    __builtin_prefetch(ahead + at + i * sizeof(bf16_t));
    __builtin_prefetch(ahead + at + (codes.depth + i) * sizeof(bf16_t));
    const F32x16 scale = load_bf16(head + i);
    top = max(top, scale);
    store(scratch.scale + i, scale);
    store(scratch.least + i, load_bf16(head + codes.depth + i));
  }
  return hmax(top);
}

/// out[q][16 c + lane] (+)= sum over the lines [line, line + depth) of x[q] times the page's column c, for each column.
/// depth <= kCodedDepth; line a multiple of what a unit covers. `most`: of each query's |x|; null: the
/// largest product is looked for, which keeps more bits. `ahead`: the page that comes next.
inline void multiply_page(const std::byte* page, const std::byte* ahead, const float* most, const KvCodes& codes,
                          std::size_t line, std::size_t depth, const float* x, std::size_t x_stride, std::size_t count,
                          float* out, std::size_t out_stride, bool add, CodedScratch& scratch) {
  const std::size_t unit_lines = 2 * codes.unit_pairs(), units = (depth + unit_lines - 1) / unit_lines;
  for (std::size_t first = 0; first < codes.columns; first += codes.group) {
    const float largest = load_heads(page, ahead, codes, first / codes.group, line, depth, scratch);
    for (std::size_t q = 0; q < count; ++q) {
      const float* own = x + q * x_stride;
      const float product = most != nullptr ? most[q] * largest : largest_product(own, scratch.scale, depth);
      scale_query(own, scratch.scale, scratch.least, depth, product, codes.excess, scratch.x + q * kCodedDepth,
                  scratch.factor[q], scratch.base[q]);
    }
    const std::size_t last = first + codes.group < codes.columns ? first + codes.group : codes.columns;
    for (std::size_t column = first, step; column < last; column += step) {
      step = last - column < kCodeColumns ? last - column : kCodeColumns;
      for (std::size_t q = 0, n; q < count; q += n) {
        n = count - q < kCodeQueries ? count - q : kCodeQueries;
        const std::size_t at = codes.column_offset(column) + line / unit_lines * KvCodes::kUnitBytes;
        code_function(codes.bits, n, step)({page + at, ahead + at, codes.column_bytes(), units,
                                            scratch.x + q * kCodedDepth, scratch.factor + q, scratch.base + q,
                                            out + q * out_stride + 16 * column, out_stride, add});
      }
    }
  }
}

}  // namespace snug::SNUG_ISA_NS
