// A summary of tokens that left the cache enters attention with its own numerator and denominator: held against a
// direct computation, with few rows (partitions are shared out) and many, with sinks and without.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "model/attention.hpp"

namespace snug {
namespace {

constexpr std::size_t kHeads = 4, kKvHeads = 2, kDim = 32, kRank = 8, kTokens = 600, kLeft = 50;

struct Case {
  std::mt19937 random{5};
  std::vector<float> keys, values, queries;  ///< [kv_head][token][dim] of what stays; [row][head][dim]
  std::vector<float> psi, left;              ///< [kv_head][token][rank], [kv_head][token][dim] of what left

  static std::vector<float> normals(std::mt19937& random, std::size_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> out(n);
    // Such that bf16 holds them exactly.
    for (float& x : out) x = std::round(normal(random) * 32) / 64;
    return out;
  }
  explicit Case(std::size_t rows)
      : keys(normals(random, kKvHeads * kTokens * kDim)),
        values(normals(random, kKvHeads * kTokens * kDim)),
        queries(normals(random, rows * kHeads * kDim)),
        psi(normals(random, kKvHeads * kLeft * kRank)),
        left(normals(random, kKvHeads * kLeft * kDim)) {
    for (float& x : psi) x = std::abs(x);
  }
};

void features(std::size_t head, const float* query, float* phi) {
  for (std::size_t r = 0; r < kRank; ++r) phi[r] = std::abs(query[r] + 0.1f * static_cast<float>(head));
}

float direct(const Case& c, std::size_t rows, std::size_t row, std::size_t head, std::size_t d, const float* sink) {
  const float* query = c.queries.data() + (row * kHeads + head) * kDim;
  const std::size_t kv = head / (kHeads / kKvHeads), position = kTokens - rows + row;
  float phi[kRank];
  features(head, query, phi);
  double sum = sink ? std::exp(sink[head]) : 0, acc = 0;
  for (std::size_t t = 0; t < kLeft; ++t)
    for (std::size_t r = 0; r < kRank; ++r) {
      const double weight = phi[r] * c.psi[(kv * kLeft + t) * kRank + r];
      sum += weight;
      acc += weight * c.left[(kv * kLeft + t) * kDim + d];
    }
  for (std::size_t t = 0; t <= position; ++t) {
    double score = 0;
    for (std::size_t i = 0; i < kDim; ++i) score += query[i] * c.keys[(kv * kTokens + t) * kDim + i];
    sum += std::exp(score);
    acc += std::exp(score) * c.values[(kv * kTokens + t) * kDim + d];
  }
  return static_cast<float>(acc / sum);
}

TEST(SummaryAttentionTest, IsWhatAFirstPartOfTheSoftmaxWouldBe) {
  ModelConfig config;
  LayerConfig layer;
  layer.heads = kHeads, layer.kv_heads = kKvHeads, layer.k_dim = layer.v_dim = kDim;
  config.layers = {layer};
  const KvShape shape{kKvHeads, kDim, kDim, 0};
  const std::vector<float> sinks{1, 2, 3, 4};
  for (const std::size_t rows : {1u, 100u}) {
    const Case c(rows);
    Ledger ledger(Ledger::kUnlimited);
    ThreadPool pool(2);
    KvPools pools(ledger, {shape});
    KvStore store(pools, 64);
    store.reserve(kTokens);
    const Bytes before = store.memory_bytes();
    auto summary = std::make_shared<LowRankSummary>(ledger, shape, kRank, features);
    for (std::size_t h = 0; h < kKvHeads; ++h) {
      for (std::size_t t = 0; t < kTokens; ++t) {
        const float *key = c.keys.data() + (h * kTokens + t) * kDim,
                    *value = c.values.data() + (h * kTokens + t) * kDim;
        kernels().store_key(key, kDim, t % kTileTokens, store.key_tile(0, h, t / kTileTokens));
        kernels().store_value(value, kDim, t % kTileTokens, store.value_tile(0, h, t / kTileTokens));
      }
      for (std::size_t t = 0; t < kLeft; ++t)
        summary->add(h, c.psi.data() + (h * kLeft + t) * kRank, c.left.data() + (h * kLeft + t) * kDim);
    }
    Attention attention(ledger, pool, config, kTokens, false);
    const RowRun run{&store, 0, rows, kTokens - rows};
    std::vector<float> with(rows * kHeads * kDim), without(with.size());
    for (const bool sunk : {false, true}) {
      const auto sink = sunk ? std::span<const float>(sinks) : std::span<const float>();
      const auto answer = [&](std::vector<float>& out) {
        attention.run(layer, 0, {&run, 1}, c.queries.data(), kHeads * kDim, 0, sink, out.data());
      };
      store.summarise(0, nullptr);
      answer(without);
      store.summarise(0, summary);
      EXPECT_EQ(store.memory_bytes(), before + summary->memory_bytes());
      EXPECT_EQ(store.fork()->summary(0), summary.get());
      answer(with);
      float apart = 0;
      for (std::size_t i = 0; i < with.size(); ++i) {
        const std::size_t row = i / (kHeads * kDim), head = i / kDim % kHeads;
        // Probabilities are bf16.
        ASSERT_NEAR(with[i], direct(c, rows, row, head, i % kDim, sunk ? sinks.data() : nullptr), 2e-3) << i;
        apart = std::max(apart, std::abs(with[i] - without[i]));
      }
      EXPECT_GT(apart, 0.01f);
    }
  }
}

}  // namespace
}  // namespace snug
