/// Attention of many queries over one part of up to 256 tokens: scores, softmax relative to the part's own maximum,
/// sums of values. Queries go in blocks of kAttentionBlock; a block's scores and probabilities stay in the L1 cache.
///
/// A query's result is bit-identical whatever stands beside it: its sums run in order of dimension and token, and a
/// token outside its range has probability exactly 0, which adds exactly nothing however many such tokens there are.
///
/// Probabilities are rounded to bf16 for the product with the values, and `sum` adds the rounded ones: then the weights
/// that the values get add up to 1, and only their proportions carry the rounding.

#include "kernels/attention_scratch.hpp"
#include "kernels/simd/attention_tiles.hpp"
#include "kernels/simd/bytes.hpp"

namespace snug::SNUG_ISA_NS {
namespace {

constexpr std::size_t kMaxTiles = kPartTokens / kTileTokens;
constexpr std::size_t kValueBlock = 4;
constexpr std::size_t kAheadValues = 4096;  ///< 8 KiB: prefetches issued faster than memory answers are dropped
constexpr float kLog2E = 1.44269504f;

struct Range {
  std::size_t begin, end;
  bool empty() const { return begin >= end; }
};

/// Tiles that hold a token of [begin, end).
Range tile_range(std::uint32_t begin, std::uint32_t end) {
  if (begin >= end) return {0, 0};
  return {begin / kTileTokens, (end + kTileTokens - 1) / kTileTokens};
}

/// Calls f(tiles) for one run of tiles after the other: a page of its own where `coded` has its bit, which is decoded
/// before.
template <class F>
void for_each_run(const AttentionPart& part, bool keys, std::uint32_t coded, Range tiles, F&& f) {
  const auto is_coded = [&](std::size_t t) { return (coded >> t / kPageTiles & 1) != 0; };
  const auto page_end = [&](std::size_t t) {
    const std::size_t end = (t / kPageTiles + 1) * kPageTiles;
    return end < tiles.end ? end : tiles.end;
  };
  for (std::size_t t = tiles.begin, end; t < tiles.end; t = end) {
    end = page_end(t);
    KvAhead ahead;
    if (is_coded(t))
      ahead = part.decode(part.source, keys, t / kPageTiles);
    else
      while (end < tiles.end && !is_coded(end)) end = page_end(end);
    f(Range{t, end}, ahead);
  }
}

/// Tiles that one of the queries sees, and what lies between them.
Range tiles_seen(const std::uint32_t* begin, const std::uint32_t* end, std::size_t count) {
  Range seen = {kMaxTiles, 0};
  for (std::size_t q = 0; q < count; ++q) {
    const Range own = tile_range(begin[q], end[q]);
    if (own.empty()) continue;
    if (own.begin < seen.begin) seen.begin = own.begin;
    if (own.end > seen.end) seen.end = own.end;
  }
  return seen;
}

/// How many tiles ahead, in the order of reading: keys of the part, its values, keys of the next part.
std::size_t tiles_ahead(std::size_t dim) {
  const auto tiles = static_cast<std::uint32_t>(kAheadValues) / static_cast<std::uint32_t>(kv_tile_values(dim));
  return tiles < 2 ? 2 : tiles;
}

/// Shares what is read next out among tiles, each of which prefetches `steps` times. Returns the bytes of a step.
std::size_t spread(KvAhead next, Range tiles, std::size_t steps, const std::byte** ahead) {
  const std::size_t all = (tiles.end - tiles.begin) * steps, step = (next.bytes + all - 1) / all;
  for (std::size_t t = tiles.begin; t < tiles.end; ++t) ahead[t] = next.at + (t - tiles.begin) * steps * step;
  return step;
}

/// A chunk of the queries' dimensions to scratch.queries.
void copy_queries(const AttentionPart& part, const bf16_t* queries, std::size_t count, std::size_t dim,
                  AttentionScratch& scratch) {
  const std::size_t dims = part.k_dim - dim < kQueryChunk ? part.k_dim - dim : kQueryChunk;
  for (std::size_t q = 0; q < count; ++q)
    for (std::size_t d = 0; d < dims; d += 16)  // a size that is known makes a move of it
      __builtin_memcpy(scratch.queries + q * kQueryChunk + d, queries + q * part.k_dim + dim + d, 16 * sizeof(bf16_t));
}

/// Raw scores of a block of queries over the tiles that one of them sees; other tiles may be absent and are never
/// touched.
void score_tiles(const AttentionPart& part, const bf16_t* queries, std::size_t count, Range tiles, KvAhead next,
                 AttentionScratch& scratch) {
  if (tiles.empty()) return;
  for (std::size_t dim = 0; dim < part.k_dim; dim += kQueryChunk) {
    const std::size_t dims = part.k_dim - dim < kQueryChunk ? part.k_dim - dim : kQueryChunk;
    if (part.k_dim > kQueryChunk) copy_queries(part, queries, count, dim, scratch);
    // Behind the last keys come the values; line for line, a few too many or too few when the dims differ.
    const bf16_t* keys[kMaxTiles];
    const std::byte* ahead[kMaxTiles];
    const std::size_t distance = tiles_ahead(part.k_dim);
    for (std::size_t t = tiles.begin; t < tiles.end; ++t) {
      keys[t] = part.k_tiles[t] + dim * kTileTokens;
      const std::size_t later = t + distance, value = tiles.begin + later - tiles.end;
      const bf16_t* tile = later < tiles.end   ? part.k_tiles[later] + dim * kTileTokens
                           : value < tiles.end ? part.v_tiles[value] + dim * kTileTokens
                                               : keys[t];
      ahead[t] = reinterpret_cast<const std::byte*>(tile);
    }
    std::size_t step_bytes = kTileTokens * 2 * sizeof(bf16_t);
    if (next.at != nullptr) step_bytes = spread(next, tiles, dims / 2, ahead);

    for (std::size_t q = 0; q < count; q += kScoreQueries) {
      const std::size_t n = count - q < kScoreQueries ? count - q : kScoreQueries;
      const std::size_t step = score_step(n);
      for (std::size_t t = tiles.begin; t < tiles.end;) {
        const bool many = t + step <= tiles.end;
        const ScoreArgs args = {scratch.queries + q * kQueryChunk,
                                keys + t,
                                ahead + t,
                                step_bytes,
                                dims / 2,
                                dim == 0,
                                scratch.scores + q * kPartTokens + t * kTileTokens};
        (many ? kScoreTable[n - 1].many : kScoreTable[n - 1].one)(args);
        t += many ? step : 1;
      }
    }
  }
}

/// Takes off of scores what the excess variance of keys adds to the mean of their exp.
void take_off_excess(const AttentionPart& part, std::size_t count, Range tiles, AttentionScratch& scratch) {
  for (std::size_t t = tiles.begin, end; t < tiles.end; t = end) {
    const bf16_t* excess = part.k_excess[t];
    for (end = t + 1; end < tiles.end && part.k_excess[end] == excess; ++end) {
    }
    if (excess == nullptr) continue;
    F32x16 variance[kAttentionBlock];
    for (std::size_t q = 0; q < count; ++q) {
      const bf16_t* squares = scratch.squares + q * part.k_dim;
      variance[q] = zero();
      std::size_t d = 0;
      for (; d + 32 <= part.k_dim; d += 32)
        variance[q] = dot_pairs(variance[q], load_pairs(squares + d), load_pairs(excess + d));
      if (d < part.k_dim) variance[q] = fma(load_bf16(squares + d), load_bf16(excess + d), variance[q]);
    }
    float added[16];
    hsum_each(variance, count, added);
    for (std::size_t q = 0; q < count; ++q)
      for (std::size_t i = t; i < end; ++i) {
        float* scores = scratch.scores + q * kPartTokens + i * kTileTokens;
        store(scores, sub(load(scores), set1(0.5f * added[q])));
      }
  }
}

/// scratch.squares, where some tile has an excess.
void square_queries(const AttentionPart& part, const bf16_t* queries, std::size_t count, Range tiles,
                    AttentionScratch& scratch) {
  bool needed = false;
  for (std::size_t t = tiles.begin; t < tiles.end; ++t) needed |= part.k_excess[t] != nullptr;
  for (std::size_t i = 0; needed && i < count * part.k_dim; i += 16) {
    const F32x16 x = load_bf16(queries + i);
    store_bf16(scratch.squares + i, mul(x, x));
  }
}

/// Applies softcap and mask to one query's scores in place; returns their maximum (-inf when it sees nothing).
float mask_scores(std::uint32_t begin, std::uint32_t end, float softcap, float* scores) {
  const Range tiles = tile_range(begin, end);
  F32x16 top = set1(-kInfinity);
  if (softcap == 0.0f && begin % kTileTokens == 0 && end % kTileTokens == 0) {
    for (std::size_t t = tiles.begin; t < tiles.end; ++t) top = max(top, load(scores + t * kTileTokens));
    return hmax(top);
  }
  for (std::size_t t = tiles.begin; t < tiles.end; ++t) {
    const std::size_t start = t * kTileTokens;
    const bool whole = begin <= start && start + kTileTokens <= end;
    F32x16 s = load(scores + start);
    if (softcap != 0.0f) s = mul(set1(softcap), tanh(mul(s, set1(1.0f / softcap))));
    if (!whole) s = select(lane_range(begin > start ? begin - start : 0, end - start), s, set1(-kInfinity));
    if (!whole || softcap != 0.0f) store(scores + start, s);
    top = max(top, s);
  }
  return hmax(top);
}

/// Weights, rounded to bf16: relative to the maximum, 0 in the block's other tiles. Returns their sum.
float exponentiate(Range own, Range block, float top, const float* scores, bf16_t* probabilities) {
  alignas(64) static constexpr std::uint16_t kOne[2] = {0x3f80, 0x3f80};
  const PairsX16 ones = broadcast_pair(kOne);
  const auto weights = [&](std::size_t tile) {
    return exp2_coarse(mul(sub(load(scores + tile * kTileTokens), set1(top)), set1(kLog2E)));
  };
  // Two tiles are added at once, so the block's range is taken to even tiles.
  const std::size_t first = block.begin & ~std::size_t{1}, last = (block.end + 1) & ~std::size_t{1};
  F32x16 sum = zero();
  if (own.begin == first && own.end == last) {
#pragma GCC unroll 4
    for (std::size_t t = first; t < last; t += 2)
      sum = dot_pairs(sum, store_both(probabilities + t * kTileTokens, weights(t), weights(t + 1)), ones);
    return hsum(sum);
  }
  const auto seen = [&](std::size_t tile) { return tile < own.begin || tile >= own.end ? zero() : weights(tile); };
  for (std::size_t t = first; t < last; t += 2)
    sum = dot_pairs(sum, store_both(probabilities + t * kTileTokens, seen(t), seen(t + 1)), ones);
  return hsum(sum);
}

/// AttentionPart::tile_sums of a block of queries.
void sum_weights(std::size_t count, Range block, const AttentionScratch& scratch, float* tile_sums) {
  for (std::size_t q = 0; q < count; ++q)
    for (std::size_t t = 0; t < kMaxTiles; ++t) {
      const bool seen = t >= block.begin && t < block.end;
      tile_sums[q * kMaxTiles + t] =
          seen ? hsum(load_bf16(scratch.probabilities + q * kPartTokens + t * kTileTokens)) : 0.0f;
    }
}

/// acc (+)= probabilities times values in tiles.
void sum_tiles(const AttentionPart& part, std::size_t count, Range tiles, KvAhead following,
               const bf16_t* probabilities, bool more, float* acc) {
  if (tiles.empty()) return;
  // The last tiles name the next part's keys; without that hint the tile itself, which costs nothing.
  const std::byte* ahead[kMaxTiles];
  const std::size_t distance = tiles_ahead(part.v_dim);
  for (std::size_t t = tiles.begin; t < tiles.end; ++t) {
    const std::size_t later = t + distance, key = later - tiles.end;
    const bf16_t* next = later < tiles.end       ? part.v_tiles[later]
                         : key < part.next_tiles ? part.next_keys[key]
                                                 : nullptr;
    ahead[t] = reinterpret_cast<const std::byte*>(next != nullptr ? next : part.v_tiles[t]);
  }
  std::size_t step_bytes = 32 * sizeof(bf16_t);
  if (following.at != nullptr) step_bytes = spread(following, tiles, kTileTokens / 2 * part.v_dim / 16, ahead);
  // Queries split evenly: 7 as 4 + 3 rather than 6 + 1. All groups meet a few tiles before the next ones, so that
  // memory is read at an even pace.
  const std::size_t groups = (count + kValueQueries - 1) / kValueQueries;
  const std::size_t vectors = part.v_dim / 16;
  for (std::size_t tile = tiles.begin; tile < tiles.end; tile += kValueBlock) {
    const std::size_t tile_end = tile + kValueBlock < tiles.end ? tile + kValueBlock : tiles.end;
    for (std::size_t vector = 0; vector < vectors; vector += kValueVectors) {
      const std::size_t d = vectors - vector < kValueVectors ? vectors - vector : kValueVectors;
      for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t q = count * g / groups, n = count * (g + 1) / groups - q;
        const ValueArgs args = {
            probabilities + q * kPartTokens, part.v_tiles,        ahead, step_bytes, tile, tile_end, part.v_dim, vector,
            tile == tiles.begin && !more,    acc + q * part.v_dim};
        kValueTable[(n - 1) * kValueVectors + d - 1](args);
      }
    }
  }
}

/// Pages that are to be decoded yet.
struct Coded {
  std::uint32_t keys, values;
};

void attend_block(const AttentionPart& part, const bf16_t* queries, std::size_t count, const std::uint32_t* begin,
                  const std::uint32_t* end, float softcap, Coded coded, AttentionState* state, float* acc,
                  float* tile_sums, AttentionScratch& scratch) {
  const Range block = tiles_seen(begin, end, count);
  if (block.empty()) {
    for (std::size_t q = 0; q < count; ++q) state[q] = {-kInfinity, 0.0f};
    __builtin_memset(acc, 0, count * part.v_dim * sizeof(float));
    if (tile_sums != nullptr) __builtin_memset(tile_sums, 0, count * kMaxTiles * sizeof(float));
    return;
  }
  square_queries(part, queries, count, block, scratch);
  copy_queries(part, queries, count, 0, scratch);
  for_each_run(part, true, coded.keys, block, [&](Range tiles, KvAhead ahead) {
    score_tiles(part, queries, count, tiles, ahead, scratch);
    take_off_excess(part, count, tiles, scratch);
  });
  for (std::size_t q = 0; q < count; ++q) {
    float* scores = scratch.scores + q * kPartTokens;
    state[q].max = mask_scores(begin[q], end[q], softcap, scores);
    state[q].sum = exponentiate(tile_range(begin[q], end[q]), block, state[q].max, scores,
                                scratch.probabilities + q * kPartTokens);
  }
  if (tile_sums != nullptr) sum_weights(count, block, scratch, tile_sums);
  for_each_run(part, false, coded.values, block, [&](Range tiles, KvAhead ahead) {
    sum_tiles(part, count, tiles, ahead, scratch.probabilities, tiles.begin > block.begin, acc);
  });
}

}  // namespace

void attend(const AttentionPart& part, const bf16_t* queries, std::size_t m, const std::uint32_t* begin,
            const std::uint32_t* end, float softcap, AttentionState* state, float* acc, std::byte* scratch) {
  auto& own = align_attention_scratch(scratch);
  Coded coded = {part.k_coded, part.v_coded};
  if (m > kAttentionBlock) {
    const Range seen = tiles_seen(begin, end, m);
    for_each_run(part, true, coded.keys, seen, [](Range, KvAhead) {});
    for_each_run(part, false, coded.values, seen, [](Range, KvAhead) {});
    coded = {};
  }
  const std::size_t blocks = (m + kAttentionBlock - 1) / kAttentionBlock;
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t q = m * b / blocks, n = m * (b + 1) / blocks - q;
    attend_block(part, queries + q * part.k_dim, n, begin + q, end + q, softcap, coded, state + q, acc + q * part.v_dim,
                 part.tile_sums != nullptr ? part.tile_sums + q * kMaxTiles : nullptr, own);
  }
}

void merge(AttentionState& total, float* total_acc, const AttentionState& part, const float* part_acc,
           std::size_t v_dim) {
  if (part.max == -kInfinity) return;
  if (total.max == -kInfinity) {
    total = part;
    __builtin_memcpy(total_acc, part_acc, v_dim * sizeof(float));
    return;
  }
  const float top = total.max > part.max ? total.max : part.max;
  const F32x16 old_weight = exp(set1(total.max - top)), new_weight = exp(set1(part.max - top));
  total.max = top;
  total.sum = hmax(fma(set1(part.sum), new_weight, mul(set1(total.sum), old_weight)));
  for (std::size_t d = 0; d < v_dim; d += 16) {
    store(total_acc + d, fma(load(part_acc + d), new_weight, mul(load(total_acc + d), old_weight)));
  }
}

void to_bf16(const float* x, std::size_t n, bf16_t* out) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) store_bf16(out + i, load(x + i));
  if (i < n) {
    bf16_t tail[16];
    store_bf16(tail, load_n(x + i, n - i));
    __builtin_memcpy(out + i, tail, (n - i) * sizeof(bf16_t));
  }
}

void store_key(const float* x, std::size_t dim, std::size_t slot, bf16_t* tile) {
  bf16_t values[16];
  for (std::size_t d = 0; d < dim; d += 16) {
    store_bf16(values, load(x + d));
    for (std::size_t pair = 0; pair < 8; ++pair) {
      __builtin_memcpy(tile + key_index(slot, d + 2 * pair), values + 2 * pair, 2 * sizeof(bf16_t));
    }
  }
}

void store_value(const float* x, std::size_t dim, std::size_t slot, bf16_t* tile) {
  bf16_t values[16];
  for (std::size_t d = 0; d < dim; d += 16) {
    store_bf16(values, load(x + d));
    for (std::size_t i = 0; i < 16; ++i) tile[value_index(slot, d + i, dim)] = values[i];
  }
}

}  // namespace snug::SNUG_ISA_NS
