// A tiny model with its file of neurons: with all of them it computes what the dense model does, with some of them the
// same whatever is in memory.

#include "measure/sparsify.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

constexpr TinyShape kShapes[] = {{.ffn = 160}, {.ffn = 160, .ungated = true}};

struct SparsifyTest : testing::TestWithParam<int> {
  Ledger ledger{Ledger::kUnlimited};
  ThreadPool pool{2};
  TemporaryFolder folder;
  std::string path = folder.write("tiny.gguf", tiny_model(kShapes[GetParam()]));

  std::vector<TokenId> tokens(std::size_t n) const {
    std::vector<TokenId> all;
    for (std::size_t i = 0; i < n; ++i) all.push_back(static_cast<TokenId>((i * 37 + i / 7) % 256));
    return all;
  }
  void prepare() {
    const auto model = Model::load(path, ledger, pool);
    const SparsifyResult r = sparsify(*model, ledger, pool, tokens(512), {.rank = 32, .context = 64}, path + ".ffn");
    EXPECT_EQ(r.tokens, 512u);
    EXPECT_EQ(r.layers, 2u);
    EXPECT_GT(r.explained, 0.3);
  }
  /// Logits of every position, fed one by one.
  std::vector<float> decode(ThreadPool& threads, const SparseFfnOptions& options, SparseFfnStats* stats = nullptr) {
    ModelOptions model_options;
    model_options.sparse_ffn = options;
    const auto model = Model::load(path, ledger, threads, model_options);
    const auto sequence = model->new_sequence(64);
    std::vector<float> all, logits(model->config().vocab_size);
    for (const TokenId token : tokens(40)) {
      const Row row{token, sequence.get(), true};
      model->forward(std::span(&row, 1), logits);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    if (stats) *stats = model->sparse_ffn_stats();
    return all;
  }
};

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    square += a[i] * a[i];
  }
  return std::sqrt(error / square);
}

TEST_P(SparsifyTest, AllNeuronsComputeWhatTheDenseModelDoes) {
  prepare();
  const std::vector<float> dense = decode(pool, {});
  // int8 weights instead of f32 ones: a step of 1/127 of a group's largest value is an error of about 1/150 of a
  // vector.
  EXPECT_LT(difference(dense, decode(pool, {.share = 1})), 0.02);
}

TEST_P(SparsifyTest, FewerNeuronsAndTheOracle) {
  prepare();
  const std::vector<float> dense = decode(pool, {});
  SparseFfnStats predicted, oracle;
  const double by_predictor = difference(dense, decode(pool, {.share = 0.5f, .measure = true}, &predicted));
  const double by_oracle = difference(dense, decode(pool, {.share = 0.5f, .oracle = true}, &oracle));
  EXPECT_LT(by_oracle, by_predictor);
  EXPECT_LT(by_predictor, 0.8);
  EXPECT_EQ(predicted.tokens, 40u);
  EXPECT_EQ(predicted.neurons.chosen, 40u * 2 * 80);
  EXPECT_GT(oracle.kept / oracle.energy, predicted.kept / predicted.energy);
  EXPECT_GT(predicted.kept / predicted.energy, 0.6);
}

TEST_P(SparsifyTest, NothingDependsOnCapacityOrThreads) {
  prepare();
  const GgufFile file = GgufFile::open(path);
  std::vector<std::vector<float>> results;
  for (const unsigned threads : {1u, 3u})
    for (const Bytes capacity : {Bytes{0}, Bytes{1} << 30}) {
      ThreadPool some(threads);
      SparseFfn sparse(ledger, some, FfnFile::open(path + ".ffn", file), {.share = 0.25f}, kernels().silu_mul);
      sparse.make_cache(capacity);
      std::vector<float>& all = results.emplace_back();
      for (int i = 0; i < 30; ++i) {
        std::vector<float> x(64), out(64, 1.0f);
        for (std::size_t j = 0; j < x.size(); ++j) x[j] = std::sin(static_cast<float>(j * 7 + i * i));
        sparse.run(static_cast<std::size_t>(i % 2), x.data(), nullptr, out.data(), i % 3 == 0);
        all.insert(all.end(), out.begin(), out.end());
      }
      EXPECT_EQ(sparse.stats().neurons.hits > sparse.stats().neurons.chosen / 2, capacity > 0);
    }
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST_P(SparsifyTest, AFileOfAnotherModelIsRefused) {
  prepare();
  folder.write("tiny.gguf", tiny_model(kShapes[GetParam()], 2));
  EXPECT_THROW(decode(pool, {.share = 0.5f}), FormatError);
}

INSTANTIATE_TEST_SUITE_P(GatedAndNot, SparsifyTest, testing::Values(0, 1));

TEST(Sparsify, ModelsWithExpertsAreRefused) {
  Ledger ledger(Ledger::kUnlimited);
  ThreadPool pool(1);
  const TemporaryFolder folder;
  const std::string path = folder.write("tiny.gguf", tiny_model({.experts = 4}));
  const auto model = Model::load(path, ledger, pool);
  EXPECT_THROW(sparsify(*model, ledger, pool, std::vector<TokenId>(600), {}, path + ".ffn"), Error);
}

}  // namespace
}  // namespace snug
