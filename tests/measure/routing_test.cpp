// Routing measures on small traces whose answers are known by hand.

#include "measure/routing.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"
#include "model/transformer.hpp"
#include "support/tiny_model.hpp"
#include "weights/expert_policy.hpp"

namespace snug {
namespace {

/// One layer, one expert per token.
RoutingTrace trace_of(std::vector<std::uint16_t> chosen) {
  return {4, 1, {std::move(chosen)}};
}

/// Two layers of 32 experts, two per token; a few experts are chosen most of the time, others after 200 tokens.
RoutingTrace skewed_trace() {
  std::mt19937 random(3);
  RoutingTrace trace{32, 2, {{}, {}}};
  for (int token = 0; token < 400; ++token)
    for (auto& layer : trace.chosen) {
      const auto pick = [&] {
        const auto expert = random() % 10 < 8 ? random() % 6 : random() % 32;
        return static_cast<std::uint16_t>((expert + (token < 200 ? 0u : 11u)) % 32);
      };
      const std::uint16_t first = pick();
      std::uint16_t second = pick();
      while (second == first) second = pick();
      layer.push_back(first), layer.push_back(second);
    }
  return trace;
}

TEST(RoutingTest, MeasuresOfAKnownTrace) {
  const RoutingTrace trace = trace_of({0, 0, 1, 0, 2, 3, 2, 2});
  EXPECT_DOUBLE_EQ(segment_routing_performance(trace, 4, 1), 6.0 / 8);
  EXPECT_DOUBLE_EQ(segment_routing_performance(trace, 8, 2), 6.0 / 8);
  EXPECT_DOUBLE_EQ(segment_cache_hit_rate(trace, 4, 2), 1);
  EXPECT_DOUBLE_EQ(segment_cache_hit_rate(trace, 1, 1), 1);
  EXPECT_DOUBLE_EQ(simulate_expert_cache(trace, "lru", 2), 4.0 / 8);
  EXPECT_DOUBLE_EQ(simulate_expert_cache(trace, "lru", 4), 4.0 / 8);
  EXPECT_THROW(simulate_expert_cache(trace, "clairvoyant", 2), UsageError);
}

TEST(RoutingTest, EveryPolicyIsBoundedAndTheDefaultIsNearTheOptimum) {
  const RoutingTrace trace = skewed_trace();
  constexpr std::size_t kCapacity = 16;
  const double bound = segment_cache_hit_rate(trace, 16, kCapacity);
  for (const ExpertPolicyInfo& policy : expert_policies()) {
    const double hits = simulate_expert_cache(trace, policy.name, kCapacity, 16);
    EXPECT_GT(hits, 0.3) << policy.name;
    EXPECT_LT(hits, bound) << policy.name;
  }
  EXPECT_GT(simulate_expert_cache(trace, kDefaultExpertPolicy, kCapacity, 16),
            simulate_expert_cache(trace, "lru", kCapacity, 16));
}

TEST(RoutingTest, AModelRecordsItsChoices) {
  Ledger ledger;
  ThreadPool pool(2);
  using namespace testing_support;
  Transformer model(parse(tiny_model({.layers = 3, .experts = 8, .used = 2})), ledger, pool, {});
  RoutingTrace trace;
  model.record_routing(&trace);
  const auto sequence = model.new_sequence(32);
  std::vector<Row> rows;
  for (TokenId t = 0; t < 5; ++t) rows.push_back({t * 11, sequence.get(), true});
  std::vector<float> logits(rows.size() * model.config().vocab_size);
  model.forward(rows, logits);
  model.record_routing(nullptr);
  model.forward(rows, logits);
  ASSERT_EQ(trace.chosen.size(), 3u);
  EXPECT_EQ(trace.tokens(), 5u);
  for (std::size_t layer = 0; layer < 3; ++layer)
    for (std::size_t t = 0; t < 5; ++t) {
      const auto chosen = trace.at(layer, t);
      EXPECT_LT(chosen[0], 8);
      EXPECT_NE(chosen[0], chosen[1]);
    }
}

}  // namespace
}  // namespace snug
