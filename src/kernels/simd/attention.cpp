/// Attention of many queries over one part of up to 256 tokens: scores, softmax relative to the part's own maximum,
/// sums of values. Queries go in blocks of kAttentionBlock; a block's scores and probabilities stay in the L1 cache.
///
/// A query's result is bit-identical whatever stands beside it: its sums run in order of dimension and token, and a
/// token outside its range has probability exactly 0, which adds exactly nothing however many such tokens there are.
///
/// Probabilities are rounded to bf16 for the product with the values, and `sum` adds the rounded ones: then the weights
/// that the values get add up to 1, and only their proportions carry the rounding.

#include "kernels/attention_scratch.hpp"
#include "kernels/simd/attention_codes.hpp"
#include "kernels/simd/attention_corrections.hpp"
#include "kernels/simd/attention_tiles.hpp"

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

constexpr std::size_t kPageTiles = kCodedPageTokens / kTileTokens;

Range page_range(Range tiles) {
  return {tiles.begin / kPageTiles * kPageTiles, (tiles.end + kPageTiles - 1) / kPageTiles * kPageTiles};
}

/// A range of tiles by what is coded, page by page: in the middle.
struct Split {
  Range before, coded, after;
};

Split split(const std::byte* const* pages, Range tiles) {
  const auto walk = [&](std::size_t t, bool coded) {
    while (t < tiles.end && (pages[t / kPageTiles] != nullptr) == coded) t = (t / kPageTiles + 1) * kPageTiles;
    return t < tiles.end ? t : tiles.end;
  };
  const std::size_t begin = walk(tiles.begin, false), end = walk(begin, true);
  return {{tiles.begin, begin}, {begin, end}, {end, tiles.end}};
}

/// How many tiles ahead, in the order of reading: keys of the part, its values, keys of the next part.
std::size_t tiles_ahead(std::size_t dim) {
  const std::size_t tiles = kAheadValues / kv_tile_values(dim);
  return tiles < 2 ? 2 : tiles;
}

/// Raw scores of a block of queries over coded pages; those of a page's tiles outside of `tiles` are filled in too.
void score_pages(const AttentionPart& part, const bf16_t* queries, std::size_t count, Range tiles,
                 AttentionScratch& scratch) {
  if (tiles.empty()) return;
  for (std::size_t dim = 0; dim < part.k_dim; dim += kCodedDepth) {
    const std::size_t dims = part.k_dim - dim < kCodedDepth ? part.k_dim - dim : kCodedDepth;
    float most[kAttentionBlock];
    for (std::size_t q = 0; q < count; ++q) {
      F32x16 top = zero();
      for (std::size_t d = 0; d < dims; d += 16) {
        const F32x16 x = load_bf16(queries + q * part.k_dim + dim + d);
        store(scratch.wide_queries + q * kCodedDepth + d, x);
        top = max(top, abs(x));
      }
      most[q] = hmax(top);
    }
    const std::size_t first = tiles.begin / kPageTiles, last = (tiles.end - 1) / kPageTiles;
    // Behind the last keys come the values.
    const auto next = [&](std::size_t page) {
      return page < last ? part.k_pages[page + 1] : part.v_pages[first] ? part.v_pages[first] : part.k_pages[page];
    };
    for (std::size_t page = first; page <= last; ++page) {
      float* scores = scratch.scores + page * kCodedPageTokens;
      // Scales of keys differ much between channels: codes of 8 bits would miss what a bound costs.
      multiply_page(part.k_pages[page], next(page), part.k_codes->bits == 8 ? nullptr : most, *part.k_codes, dim, dims,
                    scratch.wide_queries, kCodedDepth, count, scores, kPartTokens, dim > 0, scratch.coded);
      if (part.k_codes->corrected())
        add_corrections(part.k_pages[page], *part.k_codes, dim, dims, scratch.wide_queries, kCodedDepth, count, scores,
                        kPartTokens);
    }
  }
}

/// Raw scores of a block of queries over the tiles that one of them sees; other tiles may be absent and are never
/// touched.
void score_tiles(const AttentionPart& part, const bf16_t* queries, std::size_t count, Range tiles,
                 AttentionScratch& scratch) {
  if (tiles.empty()) return;
  for (std::size_t dim = 0; dim < part.k_dim; dim += kQueryChunk) {
    const std::size_t dims = part.k_dim - dim < kQueryChunk ? part.k_dim - dim : kQueryChunk;
    for (std::size_t q = 0; q < count; ++q) {
      __builtin_memcpy(scratch.queries + q * kQueryChunk, queries + q * part.k_dim + dim, dims * sizeof(bf16_t));
    }
    // Behind the last keys come the values; line for line, a few too many or too few when the dims differ.
    const bf16_t *keys[kMaxTiles], *ahead[kMaxTiles];
    const std::size_t distance = tiles_ahead(part.k_dim);
    for (std::size_t t = tiles.begin; t < tiles.end; ++t) {
      keys[t] = part.k_tiles[t] + dim * kTileTokens;
      const std::size_t later = t + distance, value = tiles.begin + later - tiles.end;
      ahead[t] = later < tiles.end   ? part.k_tiles[later] + dim * kTileTokens
                 : value < tiles.end ? part.v_tiles[value] + dim * kTileTokens
                                     : keys[t];
    }

    for (std::size_t q = 0; q < count; q += kScoreQueries) {
      const std::size_t n = count - q < kScoreQueries ? count - q : kScoreQueries;
      const std::size_t step = score_step(n);
      for (std::size_t t = tiles.begin; t < tiles.end;) {
        const bool many = t + step <= tiles.end;
        const ScoreArgs args = {scratch.queries + q * kQueryChunk,
                                keys + t,
                                ahead + t,
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
void take_off_excess(const AttentionPart& part, const bf16_t* queries, std::size_t count, Range tiles,
                     AttentionScratch& scratch) {
  for (std::size_t t = tiles.begin; t < tiles.end; t = (t / kPageTiles + 1) * kPageTiles) {
    const float* excess = part.k_excess[t / kPageTiles];
    if (excess == nullptr) continue;
    for (std::size_t q = 0; q < count; ++q) {
      F32x16 variance = zero();
      for (std::size_t d = 0; d < part.k_dim; d += 16) {
        const F32x16 x = load_bf16(queries + q * part.k_dim + d);
        variance = fma(mul(x, x), load(excess + d), variance);
      }
      const F32x16 off = set1(0.5f * hsum(variance));
      float* scores = scratch.scores + q * kPartTokens + t / kPageTiles * kCodedPageTokens;
      for (std::size_t i = 0; i < kPageTiles; ++i)
        if ((part.k_exact >> (t / kPageTiles * kPageTiles + i) & 1) == 0)
          store(scores + i * kTileTokens, sub(load(scores + i * kTileTokens), off));
    }
  }
}

/// Applies softcap and mask to one query's scores in place; returns their maximum (-inf when it sees nothing).
float mask_scores(std::uint32_t begin, std::uint32_t end, float softcap, float* scores) {
  const Range tiles = tile_range(begin, end);
  F32x16 top = set1(-kInfinity);
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

/// Weights of coded values, in place of their scores: relative to the maximum, 0 in the block's other tiles. Returns
/// their sum.
float exponentiate_coded(Range own, Range block, float top, float* scores) {
  if (block.empty()) return 0;
  F32x16 sum = zero();
  for (std::size_t t = block.begin; t < block.end; ++t) {
    float* at = scores + t * kTileTokens;
    const bool sees = t >= own.begin && t < own.end;
    const F32x16 weight = sees ? exp2_coarse(mul(sub(load(at), set1(top)), set1(kLog2E))) : zero();
    store(at, weight);
    sum = add(sum, weight);
  }
  return hsum(sum);
}

/// The same for values in tiles: rounded to bf16.
float exponentiate(Range own, Range block, float top, const float* scores, bf16_t* probabilities) {
  if (block.empty()) return 0;
  // Two tiles are added at once, so the block's range is taken to even tiles.
  const std::size_t begin = block.begin & ~std::size_t{1}, end = (block.end + 1) & ~std::size_t{1};
  for (std::size_t t = begin; t < end; ++t) {
    bf16_t* out = probabilities + t * kTileTokens;
    if (t < own.begin || t >= own.end) {
      store_bf16(out, zero());
    } else {
      const F32x16 s = sub(load(scores + t * kTileTokens), set1(top));
      store_bf16(out, exp2_coarse(mul(s, set1(kLog2E))));
    }
  }
  alignas(64) static constexpr std::uint16_t kOne[2] = {0x3f80, 0x3f80};
  const PairsX16 ones = broadcast_pair(kOne);
  F32x16 sum = zero();
  for (std::size_t t = begin; t < end; t += 2) {
    sum = dot_pairs(sum, load_pairs(probabilities + t * kTileTokens), ones);
  }
  return hsum(sum);
}

/// AttentionPart::tile_sums of a block of queries.
void sum_weights(const AttentionPart& part, std::size_t count, Range block, const AttentionScratch& scratch,
                 float* tile_sums) {
  for (std::size_t q = 0; q < count; ++q)
    for (std::size_t t = 0; t < kMaxTiles; ++t) {
      const std::size_t at = q * kPartTokens + t * kTileTokens;
      F32x16 weights = zero();
      if (t >= block.begin && t < block.end)
        weights =
            part.v_pages[t / kPageTiles] != nullptr ? load(scratch.scores + at) : load_bf16(scratch.probabilities + at);
      tile_sums[q * kMaxTiles + t] = hsum(weights);
    }
}

/// acc (+)= weights times coded values.
void sum_pages(const AttentionPart& part, std::size_t count, Range tiles, bool more, AttentionScratch& scratch,
               float* acc) {
  if (tiles.empty()) return;
  float most[kAttentionBlock];  // weights are relative to their maximum
  for (float& weight : most) weight = 1;
  const std::size_t first = tiles.begin / kPageTiles, last = (tiles.end - 1) / kPageTiles;
  const auto next = [&](std::size_t page) {
    return page < last ? part.v_pages[page + 1] : part.next_page ? part.next_page : part.v_pages[page];
  };
  for (std::size_t page = first; page <= last; ++page) {
    const float* weights = scratch.scores + page * kCodedPageTokens;
    multiply_page(part.v_pages[page], next(page), most, *part.v_codes, 0, kCodedPageTokens, weights, kPartTokens, count,
                  acc, part.v_dim, more || page > first, scratch.coded);
    if (part.v_codes->corrected())
      add_corrections(part.v_pages[page], *part.v_codes, 0, kCodedPageTokens, weights, kPartTokens, count, acc,
                      part.v_dim);
  }
}

/// acc (+)= probabilities times values in tiles.
void sum_tiles(const AttentionPart& part, std::size_t count, Range tiles, const bf16_t* probabilities, bool more,
               float* acc) {
  if (tiles.empty()) return;
  // The last tiles name the next part's keys; without that hint the tile itself, which costs nothing.
  const bf16_t* ahead[kMaxTiles];
  const std::size_t distance = tiles_ahead(part.v_dim);
  for (std::size_t t = tiles.begin; t < tiles.end; ++t) {
    const std::size_t later = t + distance, key = later - tiles.end;
    const bf16_t* next = later < tiles.end       ? part.v_tiles[later]
                         : key < part.next_tiles ? part.next_keys[key]
                                                 : nullptr;
    ahead[t] = next != nullptr ? next : part.v_tiles[t];
  }
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
            probabilities + q * kPartTokens, part.v_tiles,        ahead, tile, tile_end, part.v_dim, vector,
            tile == tiles.begin && !more,    acc + q * part.v_dim};
        kValueTable[(n - 1) * kValueVectors + d - 1](args);
      }
    }
  }
}

void attend_block(const AttentionPart& part, const bf16_t* queries, std::size_t count, const std::uint32_t* begin,
                  const std::uint32_t* end, float softcap, AttentionState* state, float* acc, float* tile_sums,
                  AttentionScratch& scratch) {
  Range block = {kMaxTiles, 0};
  for (std::size_t q = 0; q < count; ++q) {
    const Range own = tile_range(begin[q], end[q]);
    if (own.empty()) continue;
    if (own.begin < block.begin) block.begin = own.begin;
    if (own.end > block.end) block.end = own.end;
  }
  if (block.empty()) {
    for (std::size_t q = 0; q < count; ++q) state[q] = {-kInfinity, 0.0f};
    __builtin_memset(acc, 0, count * part.v_dim * sizeof(float));
    if (tile_sums != nullptr) __builtin_memset(tile_sums, 0, count * kMaxTiles * sizeof(float));
    return;
  }
  const Split keys = split(part.k_pages, block), values = split(part.v_pages, block);
  for (const Range tiles : {keys.before, keys.after}) {
    score_tiles(part, queries, count, tiles, scratch);
    take_off_excess(part, queries, count, tiles, scratch);
  }
  score_pages(part, queries, count, keys.coded, scratch);
  for (std::size_t q = 0; q < count; ++q) {
    state[q].max = mask_scores(begin[q], end[q], softcap, scratch.scores + q * kPartTokens);
  }
  // Pages are whole: weights of tiles that the block does not see are needed too, as zeros.
  const Range coded = values.coded.empty() ? Range{} : page_range(values.coded);
  for (std::size_t q = 0; q < count; ++q) {
    const Range own = tile_range(begin[q], end[q]);
    float* scores = scratch.scores + q * kPartTokens;
    bf16_t* probabilities = scratch.probabilities + q * kPartTokens;
    state[q].sum = exponentiate(own, values.before, state[q].max, scores, probabilities);
    state[q].sum += exponentiate_coded(own, coded, state[q].max, scores);
    state[q].sum += exponentiate(own, values.after, state[q].max, scores, probabilities);
  }
  if (tile_sums != nullptr) sum_weights(part, count, block, scratch, tile_sums);
  sum_tiles(part, count, values.before, scratch.probabilities, false, acc);
  sum_pages(part, count, values.coded, !values.before.empty(), scratch, acc);
  sum_tiles(part, count, values.after, scratch.probabilities, values.after.begin > block.begin, acc);
}

}  // namespace

void attend(const AttentionPart& part, const bf16_t* queries, std::size_t m, const std::uint32_t* begin,
            const std::uint32_t* end, float softcap, AttentionState* state, float* acc, std::byte* scratch) {
  auto& own = align_attention_scratch(scratch);
  const std::size_t blocks = (m + kAttentionBlock - 1) / kAttentionBlock;
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t q = m * b / blocks, n = m * (b + 1) / blocks - q;
    attend_block(part, queries + q * part.k_dim, n, begin + q, end + q, softcap, state + q, acc + q * part.v_dim,
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
