// Whose the KV cache is, and what goes when the budget shrinks.

#include "serve/kv_view.hpp"

#include <gtest/gtest.h>

#include <future>

#include "serve/scheduler.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

/// A sequence that holds these tokens.
std::unique_ptr<Sequence> fed(TinyEngine& engine, const std::vector<TokenId>& tokens) {
  auto sequence = engine.model.new_sequence(1024);
  std::vector<float> logits(engine.model.config().vocab_size);
  engine.model.feed(*sequence, tokens, logits);
  return sequence;
}

TEST(KvView, TheKeptAreATreeAndEveryPageIsCountedOnce) {
  for (const bool hybrid : {false, true}) {
    TinyEngine engine({.context = 1024, .hybrid = hybrid}, {.max_rows = 64, .context = 1024});
    PrefixStore prefixes(10, Eviction::least_recent);
    const std::vector<TokenId> common = some_tokens(256), left = joined(common, {1, 2, 3}),
                               right = joined(common, {9, 9});
    const auto beginning = fed(engine, common);
    std::vector<std::unique_ptr<Sequence>> running;
    for (const auto& [tokens, tail] : {std::pair{left, std::vector<TokenId>{1, 2, 3}}, {right, {9, 9}}}) {
      auto sequence = beginning->fork();
      std::vector<float> logits(engine.model.config().vocab_size);
      engine.model.feed(*sequence, tail, logits);
      prefixes.add(tokens, sequence->fork());
      running.push_back(std::move(sequence));
    }
    prefixes.add(common, beginning->fork());
    prefixes.add({200, 201}, fed(engine, {200, 201}));
    const KvView view = kv_view(engine.model, {running[0].get(), running[1].get()}, prefixes);
    std::vector<std::pair<std::size_t, std::size_t>> tree;
    for (const KeptStatus& k : view.tree) tree.emplace_back(k.tokens, k.shared);
    // common; with 1 2 3; with 9 9; the other.
    EXPECT_EQ(tree, (std::vector<std::pair<std::size_t, std::size_t>>{{256, 0}, {259, 256}, {258, 256}, {2, 0}}));
    const Bytes state = hybrid ? engine.model.config().state_bytes() : 0;
    if (!hybrid) {
      EXPECT_EQ(view.running + view.kept, view.use.in_memory());
      EXPECT_EQ(view.use.in_memory(), view.use.raw);
      EXPECT_EQ(view.tree[0].own, 0u);  // others have all of its pages
      EXPECT_EQ(view.tree[3].own, view.tree[3].bytes);
    }
    EXPECT_GT(view.tree[3].own, state);
    // Two that share nearly all are hardly larger than one.
    EXPECT_LT(view.running, running[0]->memory_bytes() + running[1]->memory_bytes());
    EXPECT_GE(view.running, running[0]->memory_bytes());
    // When nobody is at work, all is kept.
    const KvView idle = kv_view(engine.model, {}, prefixes);
    EXPECT_EQ(idle.running, 0u);
    EXPECT_GT(idle.kept, view.kept);
  }
}

TEST(KvView, PagesAreCountedByTheirForm) {
  TinyEngine engine({.context = 1024}, {.max_rows = 64, .context = 1024}, 2, "q8,cq-1@256");
  PrefixStore prefixes(10, Eviction::least_recent);
  prefixes.add(some_tokens(1000), fed(engine, some_tokens(1000)));
  const KvUse use = kv_view(engine.model, {}, prefixes).use;
  EXPECT_GT(use.raw, 0u);
  EXPECT_GT(use.coded, 0u);
  EXPECT_GT(use.cold, 0u);
  EXPECT_EQ(use.disk, 0u);
  ModelOptions spilling{.max_rows = 64, .context = 1024};
  spilling.kv_spill = {.limit = 1, .extent_bytes = 4 * kKiB};
  TinyEngine other({.context = 1024}, spilling);
  {
    const auto sequence = fed(other, some_tokens(1000));
    EXPECT_GT(other.model.kv_use().disk, 0u);
  }
  EXPECT_EQ(other.model.kv_use().disk, 0u);
}

TEST(KvView, TheOneUsedLeastRecentlyGoesAndTellsItsSize) {
  TinyEngine engine({.context = 1024}, {.max_rows = 64, .context = 1024});
  PrefixStore prefixes(2, Eviction::least_recent);
  EXPECT_EQ(prefixes.add({1, 2, 3}, fed(engine, {1, 2, 3})), 0u);
  EXPECT_EQ(prefixes.add({4, 5}, fed(engine, {4, 5})), 0u);
  EXPECT_NE(prefixes.find(std::vector<TokenId>{1, 2, 3, 4}), nullptr);
  EXPECT_EQ(prefixes.add({6}, fed(engine, {6})), 2u);
  EXPECT_EQ(prefixes.drop_next(), 3u);
  EXPECT_EQ(prefixes.drop_next(), 1u);
  EXPECT_EQ(prefixes.drop_next(), 0u);
}

class BudgetTest : public ::testing::Test {
protected:
  std::vector<TokenId> answer(const std::vector<TokenId>& prompt, std::size_t tokens) {
    auto done = std::make_shared<std::promise<std::vector<TokenId>>>();
    auto result = done->get_future();
    ServeRequest request;
    request.prompt = prompt;
    request.max_tokens = tokens;
    request.ignore_end = true;
    request.sampler.temperature = 0;
    scheduler.submit(request, [done, all = std::make_shared<std::vector<TokenId>>()](const ServeEvent& event) {
      for (const ServeToken& token : event.tokens) all->push_back(token.chosen.token);
      if (event.last()) done->set_value(*all);
    });
    return result.get();
  }
  void resize(Bytes budget) {
    scheduler.change_budget(budget, [this](Bytes bytes) { engine.model.resize(bytes); });
  }
  /// stats() as they are when nobody is at work.
  SchedulerStats look() {
    const auto step = [this] { scheduler.change_budget(0, [](Bytes) {}); };
    step();  // what was answered is kept now,
    scheduler.stats();
    step(), step();  // and what is kept is known
    return scheduler.stats();
  }
  TinyEngine engine{{.layers = 12, .context = 1024}, {.max_rows = 64, .context = 1024}};
  Bytes loaded = engine.ledger.report().used;
  Scheduler scheduler{engine.model, engine.ledger, {.context = 1024}};
};

TEST_F(BudgetTest, KeptBeginningsGoWhenTheBudgetShrinks) {
  for (int i = 0; i < 4; ++i) answer({i, i, 3, 4, 5, 6}, 300);
  const SchedulerStats before = look();
  ASSERT_GE(before.prefixes, 4u);
  EXPECT_GT(before.kv.kept, 0u);
  resize(loaded + before.kv.kept / 2);
  const SchedulerStats after = look();
  EXPECT_LT(after.prefixes, before.prefixes);
  EXPECT_GT(after.prefixes, 0u);
  ASSERT_FALSE(after.events.empty());
  EXPECT_EQ(after.events.front().kind, "evicted");
  EXPECT_EQ(after.events.front().times, before.prefixes - after.prefixes);
  EXPECT_LE(engine.ledger.report().used, engine.ledger.report().limit);
}

TEST_F(BudgetTest, WhatCannotBeCostsNothing) {
  answer({1, 2, 3}, 300);
  const SchedulerStats before = look();
  EXPECT_THROW(resize(4096), Error);
  EXPECT_EQ(look().prefixes, before.prefixes);
}

TEST_F(BudgetTest, ItChangesWhileAnswersAreWritten) {
  const std::vector<TokenId> prompt = some_tokens(100), expected = answer(prompt, 400);
  auto other = std::async(std::launch::async, [&] { return answer(prompt, 400); });
  for (int i = 0; i < 20; ++i) resize(loaded + (i % 2 == 0 ? 8 : 16) * kMiB);
  EXPECT_EQ(other.get(), expected);
}

}  // namespace
}  // namespace snug
