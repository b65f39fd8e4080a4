// Embeddings are what the model's last layer says, however inputs are cut and put together, and beside requests.

#include "serve/embedding_task.hpp"

#include <gtest/gtest.h>

#include <future>

#include "serve/scheduler.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct Embedded {
  std::vector<std::vector<float>> vectors;
  std::string error;
};

std::future<Embedded> embed(Scheduler& scheduler, std::vector<std::vector<TokenId>> inputs) {
  auto done = std::make_shared<std::promise<Embedded>>();
  scheduler.submit(std::make_shared<EmbeddingTask>(
      std::move(inputs), [done](std::vector<std::vector<float>> vectors, const std::string& error) {
        done->set_value({vectors, error});
      }));
  return done->get_future();
}

/// The mean of the last hidden states of a call with all tokens.
std::vector<float> expected(Model& model, const std::vector<TokenId>& tokens) {
  const auto sequence = model.new_sequence(tokens.size());
  std::vector<Row> rows;
  for (const TokenId token : tokens) rows.push_back({token, sequence.get(), true});
  const std::size_t width = model.config().width;
  std::vector<float> states(rows.size() * width), mean(width);
  model.hidden(rows, states);
  for (std::size_t i = 0; i < states.size(); ++i) mean[i % width] += states[i];
  normalise_length(mean);
  return mean;
}

void expect_near(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5f) << i;
}

std::vector<std::vector<TokenId>> some_inputs(int count, int least, int more) {
  std::vector<std::vector<TokenId>> inputs;
  for (int i = 0; i < count; ++i) inputs.push_back(joined({i * 3 % 200}, some_tokens(least + i * more)));
  return inputs;
}

TEST(EmbeddingTest, HiddenStatesAreWhatLogitsAreMadeOf) {
  TinyEngine engine({}, {.max_rows = 64});
  const std::size_t width = engine.model.config().width, vocab = engine.model.config().vocab_size;
  const auto tokens = some_tokens(20);
  const auto a = engine.model.new_sequence(100), b = engine.model.new_sequence(100);
  std::vector<Row> of_a, of_b;
  for (const TokenId token : tokens) of_a.push_back({token, a.get(), true}), of_b.push_back({token, b.get(), true});
  std::vector<float> logits(tokens.size() * vocab), states(tokens.size() * width);
  engine.model.forward(of_a, logits);
  engine.model.hidden(of_b, states);
  EXPECT_EQ(b->length(), tokens.size());
  // Output and embedding are one matrix here.
  const GgufTensor& tensor = *engine.model.file().find_tensor("token_embd.weight");
  std::vector<float> matrix(vocab * width);
  engine.model.file().file(tensor.file).read(tensor.offset, std::as_writable_bytes(std::span(matrix)));
  for (std::size_t r = 0; r < tokens.size(); ++r)
    for (std::size_t token = 0; token < vocab; ++token) {
      double logit = 0;
      for (std::size_t i = 0; i < width; ++i)
        logit += static_cast<double>(matrix[token * width + i]) * static_cast<double>(states[r * width + i]);
      ASSERT_NEAR(logits[r * vocab + token], logit, 1e-3) << r;
    }
  // Both go on alike.
  std::vector<float> next_a(vocab), next_b(vocab);
  const Row after_a{7, a.get(), true}, after_b{7, b.get(), true};
  engine.model.forward(std::span(&after_a, 1), next_a);
  engine.model.forward(std::span(&after_b, 1), next_b);
  EXPECT_EQ(next_a, next_b);
}

TEST(EmbeddingTest, HoweverInputsAreCutAndPutTogether) {
  TinyEngine engine({.context = 1024}, {.max_rows = 512});
  std::vector<std::vector<float>> wanted;
  const auto inputs = some_inputs(30, 1, 9);
  for (const auto& input : inputs) wanted.push_back(expected(engine.model, input));
  TinyEngine other({.context = 1024}, {.max_rows = 40});
  Scheduler scheduler(other.model, other.ledger, {.context = 1024});
  const Embedded together = embed(scheduler, inputs).get();
  EXPECT_EQ(together.error, "");
  ASSERT_EQ(together.vectors.size(), inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    expect_near(together.vectors[i], wanted[i]);
    double length = 0;
    for (const float v : together.vectors[i]) length += static_cast<double>(v) * static_cast<double>(v);
    EXPECT_NEAR(length, 1, 1e-5);
  }
  expect_near(embed(scheduler, {inputs[7]}).get().vectors[0], wanted[7]);
}

TEST(EmbeddingTest, BesideRequestsInLittleMemory) {
  constexpr std::uint32_t kLayers = 12;  // such that a few slabs of memory matter
  TinyEngine roomy({.layers = kLayers, .context = 1024}, {.max_rows = 64});
  const auto inputs = some_inputs(8, 200, 1);
  TinyEngine engine({.layers = kLayers, .context = 1024}, {.max_rows = 64});
  engine.ledger.set_limit(engine.ledger.report().used + 2 * engine.model.kv_bytes(400));
  Scheduler scheduler(engine.model, engine.ledger, {.context = 1024});
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 4; ++i) {
    ServeRequest request;
    request.prompt = joined({i}, some_tokens(100));
    request.max_tokens = 100;
    request.ignore_end = true;
    auto done = std::make_shared<std::promise<std::string>>();
    answers.push_back(done->get_future());
    scheduler.submit(std::move(request), [done](const ServeEvent& event) {
      if (event.last()) done->set_value(event.error);
    });
  }
  const Embedded embedded = embed(scheduler, inputs).get();
  EXPECT_EQ(embedded.error, "");
  for (auto& answer : answers) EXPECT_EQ(answer.get(), "");
  Scheduler other(roomy.model, roomy.ledger, {.context = 1024});
  const Embedded wanted = embed(other, inputs).get();
  for (std::size_t i = 0; i < embedded.vectors.size(); ++i) expect_near(embedded.vectors[i], wanted.vectors[i]);
}

/// Holds memory until it is asked for it.
class HoldingTask final : public SchedulerTask {
public:
  bool step(Model& model, PrefixStore&, std::size_t) override {
    if (gave_back_) return false;
    if (sequence_) return true;
    sequence_ = model.new_sequence(1024);
    model.feed(*sequence_, some_tokens(600), {});
    holds.set_value();
    return true;
  }
  bool give_back() override {
    gave_back_ = sequence_ != nullptr;
    sequence_ = nullptr;
    return gave_back_;
  }
  void fail(const std::string&) override {}
  std::promise<void> holds;

private:
  std::unique_ptr<Sequence> sequence_;
  bool gave_back_ = false;
};

TEST(EmbeddingTest, RequestsGetTheMemoryOfTasks) {
  TinyEngine engine({.layers = 12, .context = 1024}, {.max_rows = 64});
  engine.ledger.set_limit(engine.ledger.report().used + engine.model.kv_bytes(800));
  Scheduler scheduler(engine.model, engine.ledger, {.context = 1024});
  const auto task = std::make_shared<HoldingTask>();
  scheduler.submit(task);
  task->holds.get_future().wait();
  ServeRequest request;
  request.prompt = some_tokens(500);
  request.max_tokens = 20;
  request.ignore_end = true;
  std::promise<std::string> done;
  scheduler.submit(request, [&done](const ServeEvent& event) {
    if (event.last()) done.set_value(event.error);
  });
  EXPECT_EQ(done.get_future().get(), "");
  scheduler.stop();
  EXPECT_EQ(task->give_back(), false);  // it was asked before
}

TEST(EmbeddingTest, WhatDoesNotFitOrComesTooLateIsSaid) {
  TinyEngine engine({.layers = 12, .context = 1024}, {.max_rows = 64});
  engine.ledger.set_limit(engine.ledger.report().used + engine.model.kv_bytes(500));
  Scheduler scheduler(engine.model, engine.ledger, {.context = 1024});
  EXPECT_NE(embed(scheduler, {some_tokens(1000)}).get().error, "");
  EXPECT_EQ(embed(scheduler, {some_tokens(20)}).get().error, "");
  scheduler.stop();
  EXPECT_THROW(embed(scheduler, {some_tokens(20)}), Error);
}

}  // namespace
}  // namespace snug
