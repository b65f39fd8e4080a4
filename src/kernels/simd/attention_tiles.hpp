#pragma once
/// The two products of attention over tiles of 16 tokens: scores (queries x keys) and sums of values (probabilities x
/// values).
///
/// Both keep a rectangle of accumulators in registers: a key or value vector is loaded once for several queries, a
/// query or probability pair is broadcast once for several vectors. Every accumulator sees its own terms only, in order
/// of dimension (scores) or token (values), so a result does not depend on the rectangle it was computed in.

#include <array>
#include <utility>

#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"
#include "kernels/simd/f32.hpp"

namespace snug::SNUG_ISA_NS {

#if defined(SNUG_ISA_avx512)
/// 24 of 32 registers are accumulators; few queries take more tiles, so that there are enough independent sums to hide
/// the latency of a product.
constexpr std::size_t kScoreQueries = 12, kValueQueries = 6, kValueVectors = 4;
constexpr std::size_t score_step(std::size_t queries) {
  return queries <= 3 ? 4 : 2;
}
#else
constexpr std::size_t kScoreQueries = 4, kValueQueries = 4, kValueVectors = 1;
constexpr std::size_t score_step(std::size_t) {
  return 1;
}
#endif

/// Queries are copied in chunks of this many dimensions, at a stride that is known to the compiler.
inline constexpr std::size_t kQueryChunk = 256;

/// Adds the products over `pairs` pairs of dimensions to scores[Q][kPartTokens], T tiles at once; `first`: starts from
/// 0. `ahead` point at T pieces of memory that are only prefetched.
struct ScoreArgs {
  const bf16_t* queries;      ///< [Q][kQueryChunk]
  const bf16_t* const* keys;  ///< tiles, at the chunk's first pair
  const std::byte* const* ahead;
  std::size_t ahead_step;  ///< bytes for each pair
  std::size_t pairs;
  bool first;
  float* scores;
};

template <std::size_t Q, std::size_t T>
void score_tile(const ScoreArgs& args) {
  F32x16 acc[Q][T];
#pragma GCC unroll 16
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (std::size_t t = 0; t < T; ++t) {
      acc[q][t] = args.first ? zero() : load(args.scores + q * kPartTokens + t * kTileTokens);
    }
  }
  const bf16_t* keys[T];
  const std::byte* ahead[T];
#pragma GCC unroll 4
  for (std::size_t t = 0; t < T; ++t) {
    keys[t] = args.keys[t];
    ahead[t] = args.ahead[t];
  }
  const bf16_t* queries = args.queries;
  for (std::size_t i = 0; i < args.pairs; ++i) {
    PairsX16 key[T];
#pragma GCC unroll 4
    for (std::size_t t = 0; t < T; ++t) {
      key[t] = load_pairs(keys[t] + i * 2 * kTileTokens);
      __builtin_prefetch(ahead[t] + i * args.ahead_step);
    }
#pragma GCC unroll 16
    for (std::size_t q = 0; q < Q; ++q) {
      const PairsX16 query = broadcast_pair(queries + q * kQueryChunk + 2 * i);
#pragma GCC unroll 4
      for (std::size_t t = 0; t < T; ++t) acc[q][t] = dot_pairs(acc[q][t], key[t], query);
    }
  }
#pragma GCC unroll 16
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (std::size_t t = 0; t < T; ++t) store(args.scores + q * kPartTokens + t * kTileTokens, acc[q][t]);
  }
}

struct ValueArgs {
  const bf16_t* probabilities;    ///< [Q][kPartTokens]
  const bf16_t* const* values;    ///< tiles of [8 pairs][v_dim][2]
  const std::byte* const* ahead;  ///< of each tile: what is only prefetched meanwhile
  std::size_t ahead_step;         ///< bytes of it for each vector
  std::size_t tile_begin, tile_end;
  std::size_t v_dim, vector;  ///< first of D vectors of 16 dimensions
  bool first;                 ///< starts from 0
  float* out;                 ///< [Q][v_dim], added to
};

template <std::size_t Q, std::size_t D>
void value_tile(const ValueArgs& args) {
  F32x16 acc[Q][D];
#pragma GCC unroll 16
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (std::size_t d = 0; d < D; ++d) {
      acc[q][d] = args.first ? zero() : load(args.out + q * args.v_dim + (args.vector + d) * 16);
    }
  }
  for (std::size_t tile = args.tile_begin; tile < args.tile_end; ++tile) {
    const bf16_t* values = args.values[tile] + args.vector * 32;
    const std::size_t step = args.ahead_step;
    const std::byte* ahead = args.ahead[tile] + args.vector * step;
    const bf16_t* probabilities = args.probabilities + tile * kTileTokens;
    for (std::size_t pair = 0; pair < kTileTokens / 2; ++pair) {
      PairsX16 value[D];
#pragma GCC unroll 4
      for (std::size_t d = 0; d < D; ++d) {
        value[d] = load_pairs(values + d * 32);
        __builtin_prefetch(ahead + d * step);
      }
#pragma GCC unroll 16
      for (std::size_t q = 0; q < Q; ++q) {
        const PairsX16 p = broadcast_pair(probabilities + q * kPartTokens);
#pragma GCC unroll 4
        for (std::size_t d = 0; d < D; ++d) acc[q][d] = dot_pairs(acc[q][d], value[d], p);
      }
      values += 2 * args.v_dim;
      ahead += args.v_dim / 16 * step;
      probabilities += 2;
    }
  }
#pragma GCC unroll 16
  for (std::size_t q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (std::size_t d = 0; d < D; ++d) store(args.out + q * args.v_dim + (args.vector + d) * 16, acc[q][d]);
  }
}

using ScoreFunction = void (*)(const ScoreArgs&);
using ValueFunction = void (*)(const ValueArgs&);

/// By queries - 1: for score_step(queries) tiles, and for one.
struct ScorePair {
  ScoreFunction many, one;
};
template <std::size_t... I>
constexpr std::array<ScorePair, sizeof...(I)> score_table(std::index_sequence<I...>) {
  return {ScorePair{score_tile<I + 1, score_step(I + 1)>, score_tile<I + 1, 1>}...};
}
inline constexpr auto kScoreTable = score_table(std::make_index_sequence<kScoreQueries>{});

/// By (queries - 1) * kValueVectors + vectors - 1.
template <std::size_t... I>
constexpr std::array<ValueFunction, sizeof...(I)> value_table(std::index_sequence<I...>) {
  return {value_tile<I / kValueVectors + 1, I % kValueVectors + 1>...};
}
inline constexpr auto kValueTable = value_table(std::make_index_sequence<kValueQueries * kValueVectors>{});

}  // namespace snug::SNUG_ISA_NS
