// Perplexity and divergence on a tiny model, held against sums made from plain logits.

#include "measure/quality.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "model/transformer.hpp"
#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct QualityTest : testing::Test {
  Transformer make(std::uint32_t seed, bool reference) {
    return Transformer(parse(tiny_model({}, seed)), ledger, pool, ModelOptions{64, reference});
  }
  Ledger ledger{Ledger::kUnlimited};
  ThreadPool pool{2};
};

std::vector<TokenId> some_tokens(std::size_t n) {
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < n; ++i) tokens.push_back(static_cast<TokenId>((i * 37 + i / 7) % 256));
  return tokens;
}

TEST_F(QualityTest, PerplexityScoresTheSecondHalfOfEachWindow) {
  Transformer model = make(1, false);
  const std::size_t context = 32, vocab = model.config().vocab_size;
  const std::vector<TokenId> tokens = some_tokens(2 * context + 5);
  double sum = 0;
  std::size_t count = 0;
  for (std::size_t w = 0; w < 2; ++w) {
    const auto sequence = model.new_sequence(context);
    for (std::size_t i = 0; i + 1 < context; ++i) {
      std::vector<float> logits(vocab);
      const Row row{tokens[w * context + i], sequence.get(), true};
      model.forward(std::span(&row, 1), logits);
      if (i < context / 2) continue;
      double total = 0;
      for (const float l : logits) total += std::exp(static_cast<double>(l));
      sum += std::log(total) - logits[static_cast<std::size_t>(tokens[w * context + i + 1])];
      ++count;
    }
  }
  const PerplexityResult result = perplexity(model, tokens, {.context = context, .max_tokens = 0, .progress = nullptr});
  EXPECT_EQ(result.tokens, count);
  EXPECT_NEAR(result.nll, sum / static_cast<double>(count), 1e-4);
  EXPECT_NEAR(result.perplexity, std::exp(result.nll), 1e-9);
}

TEST_F(QualityTest, AModelDoesNotDivergeFromItself) {
  Transformer model = make(1, false), same = make(1, false);
  const DivergenceResult result =
      divergence(model, same, some_tokens(64), {.context = 32, .max_tokens = 0, .progress = nullptr});
  EXPECT_EQ(result.tokens, 64u);
  EXPECT_NEAR(result.mean_kl, 0, 1e-6);
  EXPECT_EQ(result.same_top, 1);
}

TEST_F(QualityTest, AnotherModelDiverges) {
  Transformer model = make(1, false), other = make(2, false);
  const DivergenceResult result =
      divergence(model, other, some_tokens(64), {.context = 32, .max_tokens = 0, .progress = nullptr});
  EXPECT_GT(result.mean_kl, 0.01);
  EXPECT_GE(result.max_kl, result.mean_kl);
}

TEST_F(QualityTest, ATextShorterThanOneWindowIsAnError) {
  Transformer model = make(1, false);
  EXPECT_THROW(perplexity(model, some_tokens(31), {.context = 32, .max_tokens = 0, .progress = nullptr}), Error);
}

}  // namespace
}  // namespace snug
