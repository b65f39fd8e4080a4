// Exact tiles come back from the disk beside coded pages (kv/kv_recall.hpp): prompts see everything as it was, tokens
// what matters of it.

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

constexpr Bytes kPlenty = 16 * kMiB;

KvSpillOptions recalling(Bytes memory) {
  KvSpillOptions options;
  options.extent_bytes = 1;  // a partition at a time
  options.recall = memory;
  return options;
}

struct RecallEngine : TinyEngine {
  RecallEngine(std::string_view kv, KvSpillOptions spill, unsigned threads = 2, std::size_t rows = 200,
               const TinyShape& shape = {.context = 2048})
      : TinyEngine(shape, {.max_rows = rows, .context = 2048, .kv_spill = spill}, threads, kv) {}
};

bool couples_layers(std::string_view method) {
  return method == "minicache" || method == "aqua-2";
}

/// Logits of each of `count` tokens after a prompt, one token a call.
std::vector<std::vector<float>> logits_of(TinyEngine& engine, std::size_t prompt, std::size_t count) {
  std::vector<std::vector<float>> all;
  const auto tokens = some_tokens(static_cast<int>(prompt + count));
  const auto sequence = engine.model.new_sequence(2048);
  std::vector<float> logits(engine.model.config().vocab_size);
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t fed = at == 0 ? prompt : 1;
    engine.model.feed(*sequence, std::span(tokens).subspan(at, fed), logits);
    all.push_back(logits);
    at += fed;
  }
  return all;
}

double distance(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < a[i].size(); ++j) sum += std::pow(a[i][j] - b[i][j], 2);
  return std::sqrt(sum);
}

TEST(RecallTest, APromptSeesEverythingAsItWas) {
  RecallEngine plain("", {});
  const auto expected = logits_of(plain, 1100, 0);
  for (const KvMethod& method : kv_methods()) {
    if (method.name == "bf16" || couples_layers(method.name)) continue;
    SCOPED_TRACE(method.name);
    RecallEngine engine(method.name, recalling(1));
    EXPECT_EQ(logits_of(engine, 1100, 0), expected);
  }
}

TEST(RecallTest, WhatComesBackBringsLogitsNearer) {
  RecallEngine plain("", {});
  const auto expected = logits_of(plain, 1100, 40);
  for (const std::string_view kv : {"int-1", "cq-1", "csr-1"}) {
    SCOPED_TRACE(kv);
    RecallEngine coded(kv, recalling(1)), recalled(kv, recalling(kPlenty));
    EXPECT_LT(distance(logits_of(recalled, 1100, 40), expected), 0.5 * distance(logits_of(coded, 1100, 40), expected));
  }
}

TEST(RecallTest, ResultsDoNotDependOnThreadsAndChunks) {
  const auto run = [](unsigned threads, std::size_t rows) {
    RecallEngine engine("cq-1", recalling(64 * kKiB), threads, rows);
    Session session(engine.model, 2048, greedy());
    return go_on(session, some_tokens(1300), 150);
  };
  const std::uint64_t expected = run(2, 200);
  EXPECT_EQ(run(1, 200), expected);
  EXPECT_EQ(run(3, 128), expected);
}

TEST(RecallTest, WithWindowsForksAndShorterPrompts) {
  for (const TinyShape& shape : {TinyShape{.context = 2048, .hybrid = true}, TinyShape{.context = 2048, .gemma = 3}}) {
    RecallEngine engine("kivi-2", recalling(kPlenty), 2, 200, shape);
    Session session(engine.model, 2048, greedy());
    session.prompt(some_tokens(1100));
    const auto fork = session.fork();
    EXPECT_EQ(go_on(session, some_tokens(1400), 20), go_on(*fork, some_tokens(1400), 20));
    Session fresh(engine.model, 2048, greedy());
    go_on(session, some_tokens(1300), 1), go_on(fresh, some_tokens(1300), 1);
    GenerateOptions one;
    one.max_tokens = 1;
    session.prompt(some_tokens(700)), fresh.prompt(some_tokens(700));
    EXPECT_EQ(session.generate(one, nullptr).tokens, fresh.generate(one, nullptr).tokens);
  }
}

TEST(RecallTest, ASavedSessionHasWhatWasOnTheDisk) {
  const TemporaryFolder folder;
  const std::string path = folder.file("session.kv");
  std::uint64_t hashes[2];
  for (const bool save : {true, false}) {
    RecallEngine engine("think-40", recalling(kPlenty));
    Session session(engine.model, 2048, greedy());
    if (save) {
      session.prompt(some_tokens(1100));
      session.save(path);
    } else {
      session.load(path);
    }
    hashes[save] = go_on(session, some_tokens(1200), 1);
  }
  EXPECT_EQ(hashes[0], hashes[1]);
  // Codes alone do not bring anything back.
  RecallEngine coded("think-40", {}), engine("think-40", recalling(kPlenty));
  Session without(coded.model, 2048, greedy()), session(engine.model, 2048, greedy());
  without.prompt(some_tokens(1100));
  without.save(path);
  EXPECT_THROW(session.load(path), FormatError);
}

TEST(RecallTest, NeedsACodec) {
  EXPECT_THROW(RecallEngine("", recalling(kPlenty)), UsageError);
  KvSpillOptions both = recalling(kPlenty);
  both.limit = kMiB;
  EXPECT_THROW(RecallEngine("q8", both), UsageError);
  EXPECT_THROW(RecallEngine("minicache", recalling(kPlenty)), UsageError);
}

}  // namespace
}  // namespace snug
