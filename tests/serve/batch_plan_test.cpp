#include "serve/batch_plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "generate/common_prefix.hpp"

namespace snug {
namespace {

using Tokens = std::vector<TokenId>;

/// `count` tokens that no other stretch has.
Tokens stretch(std::size_t count) {
  static TokenId next = 0;
  Tokens tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(next++);
  return tokens;
}

Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

BatchPlan plan_of(const std::vector<Tokens>& prompts, const std::vector<std::size_t>& answers = {}) {
  std::vector<BatchItem> items;
  for (std::size_t i = 0; i < prompts.size(); ++i) items.push_back({prompts[i], answers.empty() ? 10 : answers[i]});
  return plan_batch(items);
}

std::vector<std::size_t> order_of(const BatchPlan& plan) {
  std::vector<std::size_t> order;
  for (const BatchPlan::Step& step : plan.order) order.push_back(step.item);
  return order;
}

std::vector<std::size_t> shared_of(const BatchPlan& plan, std::size_t item) {
  return std::find_if(plan.order.begin(), plan.order.end(), [&](const auto& s) { return s.item == item; })->shared;
}

TEST(BatchPlan, InterleavedGroupsComeTogether) {
  std::vector<Tokens> beginnings, prompts;
  for (int g = 0; g < 3; ++g) beginnings.push_back(stretch(100));
  for (std::size_t i = 0; i < 12; ++i) prompts.push_back(beginnings[i % 3] + stretch(20));
  const BatchPlan plan = plan_of(prompts);
  EXPECT_EQ(plan.groups, 3u);
  EXPECT_EQ(plan.prompt_tokens, 12u * 120);
  EXPECT_EQ(plan.group_savings, 9u * 100);
  EXPECT_EQ(plan.distinct_tokens, 12u * 120 - 9 * 100);
  std::vector<std::size_t> groups;
  for (const std::size_t item : order_of(plan)) groups.push_back(item % 3);
  EXPECT_EQ(std::unique(groups.begin(), groups.end()) - groups.begin(), 3);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(shared_of(plan, i), std::vector<std::size_t>{100});
}

TEST(BatchPlan, DeeperBeginningsAreWorthAGroupWhenTheySaveMoreThanTheyRepeat) {
  const Tokens system = stretch(100), deep = stretch(400), shallow = stretch(40);
  // Two items share 400 tokens more: worth reading the 100 again. The other two only 40.
  const BatchPlan plan = plan_of({system + deep + stretch(10), system + stretch(10), system + shallow + stretch(10),
                                  system + deep + stretch(10), system + shallow + stretch(10)});
  EXPECT_EQ(plan.groups, 2u);
  EXPECT_EQ(plan.group_savings, 500u + 2 * 100);
  EXPECT_EQ(plan.distinct_tokens, 100u + 400 + 40 + 50);
  EXPECT_EQ(shared_of(plan, 0), (std::vector<std::size_t>{100, 500}));
  EXPECT_EQ(shared_of(plan, 2), (std::vector<std::size_t>{100, 140}));
  // What shares more than its group does stays together in it.
  const auto order = order_of(plan);
  const auto place = [&](std::size_t item) { return std::find(order.begin(), order.end(), item) - order.begin(); };
  EXPECT_EQ(std::abs(place(0) - place(3)), 1);
  EXPECT_EQ(std::abs(place(2) - place(4)), 1);
}

TEST(BatchPlan, WhoWritesMuchForWhatIsReadComesFirst) {
  const Tokens a = stretch(300), b = stretch(300), inner = stretch(100);
  const BatchPlan plan = plan_of({a + stretch(10), stretch(50), b + stretch(10), a + stretch(10), b + stretch(10),
                                  stretch(50), b + inner + stretch(10), b + inner + stretch(10)},
                                 {5, 1, 50, 5, 60, 500, 200, 300});
  // The single one of 500 for 50; the group of b, in it the two with most; a; the single one of 1 for 50.
  EXPECT_EQ(order_of(plan), (std::vector<std::size_t>{5, 4, 2, 7, 6, 0, 3, 1}));
}

TEST(BatchPlan, EqualAndNestedPrompts) {
  const Tokens text = stretch(200);
  const BatchPlan plan = plan_of({text, text, Tokens(text.begin(), text.begin() + 64), text + stretch(5), {1}, {1}});
  EXPECT_EQ(plan.order.size(), 6u);
  // A prompt is kept before its last token, which every request has to read.
  EXPECT_EQ(shared_of(plan, 0), (std::vector<std::size_t>{64, 199}));
  EXPECT_EQ(shared_of(plan, 2), std::vector<std::size_t>{63});
  EXPECT_EQ(shared_of(plan, 3), (std::vector<std::size_t>{64, 200}));
  EXPECT_TRUE(shared_of(plan, 4).empty());
  EXPECT_TRUE(plan_of({}).order.empty());
}

/// What any choice of groups saves: every set of beginnings, tried out.
std::size_t best_by_trying(const std::vector<Tokens>& prompts) {
  std::set<Tokens> beginnings;
  for (std::size_t i = 0; i < prompts.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (const std::size_t n = common_prefix(prompts[i], prompts[j]); n > 0)
        beginnings.insert(Tokens(prompts[i].begin(), prompts[i].begin() + static_cast<std::ptrdiff_t>(n)));
  const std::vector<Tokens> all(beginnings.begin(), beginnings.end());
  std::size_t best = 0;
  for (std::size_t set = 0; set < std::size_t{1} << all.size(); ++set) {
    std::size_t saved = 0, cost = 0;
    for (std::size_t b = 0; b < all.size(); ++b)
      if (set >> b & 1) cost += all[b].size();
    for (const Tokens& prompt : prompts) {
      std::size_t most = 0;
      for (std::size_t b = 0; b < all.size(); ++b)
        if ((set >> b & 1) && common_prefix(all[b], prompt) == all[b].size()) most = std::max(most, all[b].size());
      saved += most;
    }
    if (saved > cost) best = std::max(best, saved - cost);
  }
  return best;
}

TEST(BatchPlan, NoChoiceOfGroupsSavesMore) {
  std::mt19937 random(7);
  std::size_t with_several_levels = 0;
  for (int round = 0; round < 60; ++round) {
    // A random tree: each prompt goes on from a random beginning of an earlier one, at a place worth sharing.
    std::vector<Tokens> prompts, roots{{}};
    for (int i = 0; i < 9; ++i) {
      const Tokens& root = roots[random() % roots.size()];
      const Tokens grown = root + stretch(kLeastShared + random() % 200);
      roots.push_back(grown);
      prompts.push_back(grown + stretch(1 + random() % 50));
    }
    const BatchPlan plan = plan_of(prompts);
    EXPECT_EQ(plan.group_savings, best_by_trying(prompts)) << round;
    for (const auto& step : plan.order) with_several_levels += step.shared.size() > 1;
    std::vector<std::size_t> order = order_of(plan);
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], i);
  }
  EXPECT_GT(with_several_levels, 50u);
}

TEST(BatchPlan, ManyRequestsArePlannedInNoTime) {
  std::vector<Tokens> prompts;
  const Tokens text = stretch(4000);
  // Each begins with another length of one text: as deep a tree as can be.
  for (std::size_t i = 0; i < 4000; ++i)
    prompts.push_back(Tokens(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(i * 7919 % 4000)) + stretch(3));
  const BatchPlan plan = plan_of(prompts);
  EXPECT_EQ(plan.order.size(), prompts.size());
  EXPECT_GT(plan.group_savings, plan.prompt_tokens / 2);
}

}  // namespace
}  // namespace snug
