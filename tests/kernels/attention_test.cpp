/// Attention against a naive one in double precision over the same bf16 values, and its promise: a query's result is
/// bit-identical whatever is computed beside it.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention_part.hpp"
#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"
#include "support/bf16_value.hpp"

namespace snug {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

using testing_support::bf16_value;

/// Queries, and keys and values of up to 256 tokens in tiles.
struct Problem {
  std::size_t m, tokens, k_dim, v_dim, tiles;
  std::vector<bf16_t> queries, keys, values;
  std::vector<const bf16_t*> k_tiles, v_tiles;
  std::vector<std::uint32_t> begin, end;
  float softcap = 0;

  AttentionPart part() const { return {k_tiles.data(), v_tiles.data(), tiles, k_dim, v_dim}; }
  float query(std::size_t i, std::size_t d) const { return bf16_value(queries[i * k_dim + d]); }
  float key(std::size_t t, std::size_t d) const { return bf16_value(k_tiles[t / 16][key_index(t % 16, d)]); }
  float value(std::size_t t, std::size_t d) const { return bf16_value(v_tiles[t / 16][value_index(t % 16, d, v_dim)]); }
};

Problem make_problem(const KernelTable& k, std::size_t m, std::size_t tokens, std::size_t k_dim, std::size_t v_dim,
                     unsigned seed = 1) {
  Problem p{m, tokens, k_dim, v_dim, (tokens + 15) / 16, {}, {}, {}, {}, {}, {}, {}};
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  const auto fill = [&](std::vector<float>& x, float spread) {
    for (float& v : x) v = normal(generator) * spread;
  };
  std::vector<float> q(m * k_dim);
  fill(q, 2.0f / std::sqrt(static_cast<float>(k_dim)));
  p.queries.resize(m * k_dim);
  k.to_bf16(q.data(), q.size(), p.queries.data());
  p.keys.resize(p.tiles * kv_tile_values(k_dim));
  p.values.resize(p.tiles * kv_tile_values(v_dim));
  std::vector<float> key(k_dim), value(v_dim);
  for (std::size_t t = 0; t < tokens; ++t) {
    fill(key, 1.0f);
    fill(value, 1.0f);
    k.store_key(key.data(), k_dim, t % 16, p.keys.data() + t / 16 * kv_tile_values(k_dim));
    k.store_value(value.data(), v_dim, t % 16, p.values.data() + t / 16 * kv_tile_values(v_dim));
  }
  for (std::size_t t = 0; t < p.tiles; ++t) {
    p.k_tiles.push_back(p.keys.data() + t * kv_tile_values(k_dim));
    p.v_tiles.push_back(p.values.data() + t * kv_tile_values(v_dim));
  }
  p.begin.assign(m, 0);
  p.end.assign(m, static_cast<std::uint32_t>(tokens));
  return p;
}

struct Result {
  std::vector<AttentionState> state;
  std::vector<float> acc;
};

/// Queries [first, first + count) of the problem.
Result run(const KernelTable& k, const Problem& p, std::size_t first, std::size_t count, const AttentionPart& part) {
  Result r{std::vector<AttentionState>(count), std::vector<float>(count * p.v_dim, std::nanf(""))};
  std::vector<std::byte> scratch(attention_scratch_bytes(count));
  k.attend(part, p.queries.data() + first * p.k_dim, count, p.begin.data() + first, p.end.data() + first, p.softcap,
           r.state.data(), r.acc.data(), scratch.data());
  return r;
}
Result run(const KernelTable& k, const Problem& p, std::size_t first, std::size_t count) {
  return run(k, p, first, count, p.part());
}
Result run(const KernelTable& k, const Problem& p) {
  return run(k, p, 0, p.m);
}

void expect_reference(const Problem& p, const Result& r) {
  for (std::size_t i = 0; i < p.m; ++i) {
    std::vector<double> score(p.tokens);
    double top = -1e300;
    for (std::size_t t = p.begin[i]; t < p.end[i]; ++t) {
      for (std::size_t d = 0; d < p.k_dim; ++d) score[t] += double{p.query(i, d)} * p.key(t, d);
      if (p.softcap != 0) score[t] = p.softcap * std::tanh(score[t] / p.softcap);
      top = std::max(top, score[t]);
    }
    double sum = 0, squares = 0;
    std::vector<double> want(p.v_dim);
    for (std::size_t t = p.begin[i]; t < p.end[i]; ++t) {
      const double e = std::exp(score[t] - top);
      sum += e;
      squares += e * e;
      for (std::size_t d = 0; d < p.v_dim; ++d) want[d] += e * p.value(t, d);
    }
    ASSERT_NEAR(r.state[i].max, top, 1e-5 * (1 + std::abs(top)));
    // Each probability is rounded to bf16 (relative error up to 2^-9, to either side): the error of a weighted sum of
    // values near 1 is that times the weights' root sum of squares, with 5 standard deviations of room.
    const double tolerance = 5.0 / 512 * std::sqrt(squares) / sum + 1e-5;
    ASSERT_NEAR(r.state[i].sum, sum, sum / 512);
    for (std::size_t d = 0; d < p.v_dim; ++d) {
      ASSERT_NEAR(r.acc[i * p.v_dim + d] / r.state[i].sum, want[d] / sum, tolerance) << "query " << i << " dim " << d;
    }
  }
}

/// Result `i` of `a` is bit for bit result `j` of `b`.
void expect_same(const Result& a, std::size_t i, const Result& b, std::size_t j, std::size_t v_dim) {
  EXPECT_EQ(a.state[i].max, b.state[j].max);
  EXPECT_EQ(a.state[i].sum, b.state[j].sum);
  for (std::size_t d = 0; d < v_dim; ++d) ASSERT_EQ(a.acc[i * v_dim + d], b.acc[j * v_dim + d]) << "dim " << d;
}

class Attention : public testing::TestWithParam<const KernelTable*> {
protected:
  const KernelTable& k() const { return *GetParam(); }
};

TEST_P(Attention, Bf16RoundsToNearestEven) {
  const float one = 1.0f, ulp = 0x1p-7f;
  const std::vector<float> x = {one + ulp / 2,
                                one + 3 * ulp / 2,
                                one + 0x1.1p-8f,
                                -(one + ulp / 2),
                                3.4e38f,
                                kInf,
                                -kInf,
                                0.0f,
                                -0.0f,
                                1.5f,
                                2.0f,
                                -7.0f,
                                std::nanf(""),
                                0.1f,
                                0.2f,
                                0.3f,
                                5.0f,
                                6.0f};
  const std::vector<bf16_t> want = {0x3f80, 0x3f82, 0x3f81, 0xbf80, 0x7f80, 0x7f80, 0xff80, 0x0000, 0x8000,
                                    0x3fc0, 0x4000, 0xc0e0, 0x7fc0, 0x3dcd, 0x3e4d, 0x3e9a, 0x40a0, 0x40c0};
  for (std::size_t n = 1; n <= x.size(); ++n) {
    std::vector<bf16_t> out(n + 1, 0x1234);
    k().to_bf16(x.data(), n, out.data());
    for (std::size_t i = 0; i < n; ++i) {
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(bf16_value(out[i])));
      } else {
        EXPECT_EQ(out[i], want[i]) << i;
      }
    }
    EXPECT_EQ(out[n], 0x1234);
  }
}

TEST_P(Attention, TilesHoldTokensInTheirSlots) {
  constexpr std::size_t kDim = 48;
  std::vector<bf16_t> key(kv_tile_values(kDim), 0x7777), value = key;
  std::vector<float> x(kDim);
  for (std::size_t d = 0; d < kDim; ++d) x[d] = static_cast<float>(d) - 20.0f;
  for (const std::size_t slot : {0, 3, 15}) {
    k().store_key(x.data(), kDim, slot, key.data());
    k().store_value(x.data(), kDim, slot, value.data());
  }
  for (std::size_t t = 0; t < 16; ++t) {
    for (std::size_t d = 0; d < kDim; ++d) {
      const bool stored = t == 0 || t == 3 || t == 15;
      const float want = stored ? x[d] : bf16_value(0x7777);
      EXPECT_EQ(bf16_value(key[key_index(t, d)]), want);
      EXPECT_EQ(bf16_value(value[value_index(t, d, kDim)]), want);
    }
  }
}

TEST_P(Attention, MatchesReference) {
  for (const std::size_t dim : {16, 64, 80, 96, 128, 256, 512}) {
    for (const std::size_t tokens : {1, 3, 7, 15, 16, 17, 31, 33, 63, 65, 127, 255, 256}) {
      const std::size_t m = 1 + tokens % 14;
      const Problem p = make_problem(k(), m, tokens, dim, dim, static_cast<unsigned>(dim + tokens));
      expect_reference(p, run(k(), p));
    }
  }
}

TEST_P(Attention, MatchesReferenceForManyQueriesAndUnequalDims) {
  for (const std::size_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 24, 25, 64}) {
    Problem p = make_problem(k(), m, 200, 96, 64, static_cast<unsigned>(m));
    p.softcap = m % 2 == 0 ? 3.0f : 0.0f;
    for (std::size_t i = 0; i < m; ++i) {
      p.end[i] = static_cast<std::uint32_t>(200 - 3 * i);
      p.begin[i] = static_cast<std::uint32_t>(i * 7 % 5 * 2);
    }
    expect_reference(p, run(k(), p));
    Problem narrow = make_problem(k(), m, 50, 32, 176, static_cast<unsigned>(m));
    expect_reference(narrow, run(k(), narrow));
  }
}

TEST_P(Attention, ResultOfAQueryDoesNotDependOnItsBatch) {
  for (const std::size_t dim : {64, 80, 256, 512}) {
    for (const float softcap : {0.0f, 20.0f}) {
      Problem p = make_problem(k(), 37, 250, dim, dim);
      p.softcap = softcap;
      std::mt19937 generator(3);
      for (std::size_t i = 0; i < p.m; ++i) {
        p.begin[i] = static_cast<std::uint32_t>(generator() % 100);
        p.end[i] = p.begin[i] + static_cast<std::uint32_t>(generator() % 151);  // some are empty
      }
      const Result all = run(k(), p);
      for (std::size_t i = 0; i < p.m; ++i) expect_same(run(k(), p, i, 1), 0, all, i, dim);
      for (const std::size_t count : {2, 3, 5, 7, 12, 13}) {
        const Result some = run(k(), p, 4, count);
        for (std::size_t i = 0; i < count; ++i) expect_same(some, i, all, 4 + i, dim);
      }
    }
  }
}

TEST_P(Attention, TokensOutsideTheRangeChangeNothing) {
  constexpr std::size_t kDim = 64;
  for (const std::uint32_t end : {1u, 16u, 17u, 40u, 47u, 48u}) {
    for (const std::uint32_t begin : {0u, 5u, 16u, 39u}) {
      Problem p = make_problem(k(), 9, 128, kDim, kDim);
      p.begin.assign(p.m, begin);
      p.end.assign(p.m, end);
      const Result want = run(k(), p);
      // Other tokens with huge values: scores overflow to inf and NaN.
      const std::vector<bf16_t> keys = p.keys, values = p.values;
      for (std::size_t t = 0; t < 128; ++t) {
        if (begin <= t && t < end) continue;
        for (std::size_t d = 0; d < kDim; ++d) {
          p.keys[t / 16 * kv_tile_values(kDim) + key_index(t % 16, d)] = d % 2 != 0 ? 0x7f7f : 0xff7f;
          p.values[t / 16 * kv_tile_values(kDim) + value_index(t % 16, d, kDim)] = 0x7f7f;
        }
      }
      const Result garbage = run(k(), p);
      // Tiles without a visible token are absent.
      for (std::size_t t = 0; t < p.tiles; ++t) {
        if (begin < end && t >= begin / 16 && t * 16 < end) continue;
        p.k_tiles[t] = p.v_tiles[t] = nullptr;
      }
      const Result absent = run(k(), p);
      std::vector<const bf16_t*> next(3, p.keys.data());
      next[1] = nullptr;
      AttentionPart hinted = p.part();
      hinted.next_keys = next.data();
      hinted.next_tiles = next.size();
      const Result with_hint = run(k(), p, 0, p.m, hinted);
      p.tiles = (end + 15) / 16;
      const Result shorter = run(k(), p);
      for (std::size_t i = 0; i < p.m; ++i) {
        expect_same(garbage, i, want, i, kDim);
        expect_same(absent, i, want, i, kDim);
        expect_same(with_hint, i, want, i, kDim);
        expect_same(shorter, i, want, i, kDim);
      }
    }
  }
}

TEST_P(Attention, EmptyRange) {
  Problem p = make_problem(k(), 3, 32, 32, 32);
  p.begin = {4, 0, 32};
  p.end = {4, 32, 32};
  const Result r = run(k(), p);
  for (const std::size_t i : {0u, 2u}) {
    EXPECT_EQ(r.state[i].max, -kInf);
    EXPECT_EQ(r.state[i].sum, 0.0f);
    for (std::size_t d = 0; d < 32; ++d) EXPECT_EQ(r.acc[i * 32 + d], 0.0f);
  }
  p.begin = p.end = {7, 7, 7};
  const Result none = run(k(), p);
  for (std::size_t i = 0; i < 3; ++i) expect_same(none, i, r, 0, 32);
}

TEST_P(Attention, LargeScoresDoNotOverflow) {
  Problem p = make_problem(k(), 4, 64, 64, 64);
  for (bf16_t& q : p.queries) q = static_cast<bf16_t>(q + (7 << 7));  // times 128
  expect_reference(p, run(k(), p));
}

TEST_P(Attention, MergeOfPartsIsTheWhole) {
  constexpr std::size_t kDim = 48;
  Problem p = make_problem(k(), 5, 256, kDim, kDim);
  const Result whole = run(k(), p);
  const std::uint32_t cuts[] = {0, 30, 30, 100, 256};
  Result total{std::vector<AttentionState>(p.m, AttentionState{-kInf, 0}),
               std::vector<float>(p.m * kDim, std::nanf(""))};
  for (std::size_t c = 0; c + 1 < std::size(cuts); ++c) {
    p.begin.assign(p.m, cuts[c]);
    p.end.assign(p.m, cuts[c + 1]);
    const Result part = run(k(), p);
    for (std::size_t i = 0; i < p.m; ++i) {
      k().merge(total.state[i], total.acc.data() + i * kDim, part.state[i], part.acc.data() + i * kDim, kDim);
      if (c == 0) expect_same(total, i, part, i, kDim);
    }
  }
  for (std::size_t i = 0; i < p.m; ++i) {
    EXPECT_EQ(total.state[i].max, whole.state[i].max);
    for (std::size_t d = 0; d < kDim; ++d) {
      // Probabilities round differently relative to another maximum.
      EXPECT_NEAR(total.acc[i * kDim + d] / total.state[i].sum, whole.acc[i * kDim + d] / whole.state[i].sum, 0.01);
    }
  }
}

TEST_P(Attention, MergeArithmetic) {
  std::vector<float> total(16, 3.0f), part(16, 5.0f);
  AttentionState t{1.0f, 2.0f};
  k().merge(t, total.data(), {3.0f, 4.0f}, part.data(), 16);
  EXPECT_EQ(t.max, 3.0f);
  EXPECT_NEAR(t.sum, 4.0 + 2.0 * std::exp(-2.0), 1e-6);
  EXPECT_NEAR(total[15], 5.0 + 3.0 * std::exp(-2.0), 1e-6);
  // An empty part changes nothing, whatever its sums hold.
  const AttentionState before = t;
  const std::vector<float> acc = total;
  part.assign(16, std::nanf(""));
  k().merge(t, total.data(), {-kInf, 0.0f}, part.data(), 16);
  EXPECT_EQ(t.max, before.max);
  EXPECT_EQ(t.sum, before.sum);
  EXPECT_EQ(total, acc);
  // An empty total becomes the part.
  AttentionState empty{-kInf, 0.0f};
  k().merge(empty, part.data(), t, total.data(), 16);
  EXPECT_EQ(empty.sum, t.sum);
  EXPECT_EQ(part, total);
}

std::string table_name(const testing::TestParamInfo<const KernelTable*>& info) {
  return std::string(info.param->name);
}
INSTANTIATE_TEST_SUITE_P(Isa, Attention, testing::ValuesIn(available_kernels()), table_name);

/// Decodes by copying from where the tiles really are.
struct CopiedPages {
  const Problem& problem;
  std::vector<bf16_t> room;  ///< a page's keys or values
  std::vector<std::pair<bool, std::size_t>> decoded;

  explicit CopiedPages(const Problem& p) : problem(p), room(64 * std::max(p.k_dim, p.v_dim)) {}
  static KvAhead decode(const void* source, bool keys, std::size_t page) {
    auto& self = *static_cast<CopiedPages*>(const_cast<void*>(source));
    const std::size_t values = 64 * (keys ? self.problem.k_dim : self.problem.v_dim);
    const std::vector<bf16_t>& from = keys ? self.problem.keys : self.problem.values;
    std::copy_n(from.data() + page * values, values, self.room.data());
    self.decoded.emplace_back(keys, page);
    return {reinterpret_cast<const std::byte*>(from.data()), 100};
  }
};

/// Pages that are decoded one by one into one place give what their tiles give, each decoded once and in order.
TEST(CodedAttention, IsThatOverTheDecodedTiles) {
  for (const KernelTable* k : available_kernels())
    for (const std::size_t dim : {16u, 64u, 80u, 512u}) {
      constexpr std::size_t kQueries = 11, kTokens = 256;
      Problem p = make_problem(*k, kQueries, kTokens, dim, dim, 5);
      for (std::size_t i = 0; i < kQueries; ++i) p.begin[i] = i % 3 == 0 ? static_cast<std::uint32_t>(4 * i) : 0;
      const Result plain = run(*k, p);
      AttentionPart part = p.part();
      CopiedPages pages(p);
      std::vector<const bf16_t*> k_tiles = p.k_tiles, v_tiles = p.v_tiles;
      part.k_coded = 0b0110, part.v_coded = 0b0010;
      for (std::size_t t = 4; t < 12; ++t) {
        k_tiles[t] = pages.room.data() + t % 4 * kv_tile_values(dim);
        if (t < 8) v_tiles[t] = k_tiles[t];
      }
      part.k_tiles = k_tiles.data(), part.v_tiles = v_tiles.data();
      part.decode = CopiedPages::decode;
      part.source = &pages;
      const Result coded = run(*k, p, 0, kQueries, part);
      for (std::size_t q = 0; q < kQueries; ++q) expect_same(coded, q, plain, q, dim);
      const std::vector<std::pair<bool, std::size_t>> order = {{true, 1}, {true, 2}, {false, 1}};
      EXPECT_EQ(pages.decoded, order) << k->name;
    }
}

/// Of more queries than are multiplied at once, each page is decoded once all the same.
TEST(CodedAttention, ManyQueriesShareADecodedPage) {
  for (const KernelTable* k : available_kernels()) {
    constexpr std::size_t kDim = 64, kQueries = 40;
    Problem p = make_problem(*k, kQueries, 256, kDim, kDim, 5);
    AttentionPart part = p.part();
    CopiedPages pages(p);
    std::vector<const bf16_t*> k_tiles = p.k_tiles;
    for (std::size_t t = 4; t < 8; ++t) k_tiles[t] = pages.room.data() + t % 4 * kv_tile_values(kDim);
    part.k_tiles = k_tiles.data();
    part.k_coded = 0b0010;
    part.decode = CopiedPages::decode;
    part.source = &pages;
    const Result plain = run(*k, p), coded = run(*k, p, 0, kQueries, part);
    for (std::size_t q = 0; q < kQueries; ++q) expect_same(coded, q, plain, q, kDim);
    EXPECT_EQ(pages.decoded.size(), 1u) << k->name;
  }
}

/// exp(score) of a tile falls by half of the variance that its excess gives to scores.
TEST(CodedAttention, ExcessVarianceIsTakenOff) {
  for (const KernelTable* k : available_kernels())
    for (const std::size_t dim : {64u, 80u}) {
      constexpr std::size_t kQueries = 5, kTokens = 192;
      Problem p = make_problem(*k, kQueries, kTokens, dim, dim, 9);
      std::vector<float> excess(dim);
      for (std::size_t d = 0; d < dim; ++d) excess[d] = 0.01f * static_cast<float>(d % 7) - 0.01f;
      std::vector<bf16_t> rounded(dim);
      k->to_bf16(excess.data(), dim, rounded.data());
      const Result plain = run(*k, p);
      AttentionPart part = p.part();
      for (std::size_t t = 4; t < 8; ++t) part.k_excess[t] = rounded.data();
      const Result lowered = run(*k, p, 0, kQueries, part);
      for (std::size_t q = 0; q < kQueries; ++q) {
        // The page by itself, its scores lowered, between those beside it.
        double off = 0;
        for (std::size_t d = 0; d < dim; ++d) {
          const double x = static_cast<double>(p.query(q, d));
          off += 0.5 * x * x * static_cast<double>(excess[d]);
        }
        AttentionState total{-std::numeric_limits<float>::infinity(), 0};
        std::vector<float> expected(dim);
        for (const std::uint32_t third : {0u, 1u, 2u}) {
          p.begin[q] = 64 * third, p.end[q] = 64 * third + 64;
          Result own = run(*k, p, q, 1);
          if (third == 1) own.state[0].max -= static_cast<float>(off);
          k->merge(total, expected.data(), own.state[0], own.acc.data(), dim);
        }
        for (std::size_t d = 0; d < dim; ++d)
          EXPECT_NEAR(lowered.acc[q * dim + d] / lowered.state[q].sum, expected[d] / total.sum, 0.02f) << k->name;
        EXPECT_NE(lowered.state[q].sum, plain.state[q].sum);
      }
    }
}

TEST(CodedAttention, WeightsOfTilesAreTold) {
  for (const KernelTable* k : available_kernels()) {
    constexpr std::size_t kDim = 64, kQueries = 13, kTokens = 200, kTiles = kPartTokens / kTileTokens;
    Problem p = make_problem(*k, kQueries, kTokens, kDim, kDim, 9);
    std::vector<float> sums(kQueries * kTiles, -1);
    AttentionPart part = p.part();
    part.tile_sums = sums.data();
    p.begin[2] = 70, p.end[2] = 150;
    const Result all = run(*k, p, 0, kQueries, part);
    for (std::size_t q = 0; q < kQueries; ++q)
      for (std::uint32_t t = 0; t < kTiles; ++t) {
        Problem one = p;
        one.begin[q] = std::max(p.begin[q], 16 * t), one.end[q] = std::min(p.end[q], 16 * t + 16);
        const Result own = run(*k, one, q, 1);
        const float want =
            one.begin[q] < one.end[q] ? own.state[0].sum * std::exp(own.state[0].max - all.state[q].max) : 0;
        EXPECT_NEAR(sums[q * kTiles + t], want, 0.01f * all.state[q].sum)
            << k->name << ", query " << q << ", tile " << t;
      }
  }
}

}  // namespace
}  // namespace snug
