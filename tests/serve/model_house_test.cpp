// Models that share a budget answer as each would alone, whatever they take from each other, and the ledger is never
// over its limit.

#include "serve/model_house.hpp"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "support/temporary_folder.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

constexpr std::size_t kModels = 3, kContext = 512;
const std::string kNames[kModels] = {"one", "two", "three"};

/// Large enough that a part of it can be in memory.
const TinyShape kShape{.vocab = 1024, .width = 256, .layers = 2, .ffn = 768, .context = kContext};

struct Answered {
  std::vector<TokenId> tokens;
  std::string error;
  bool operator==(const Answered&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const Answered& a) {
    return out << a.tokens.size() << " tokens" << (a.error.empty() ? "" : ", then: ") << a.error;
  }
};

std::future<Answered> ask(Scheduler& scheduler, std::vector<TokenId> prompt, std::size_t max_tokens,
                          ServedModels::Lease lease = nullptr) {
  ServeRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.ignore_end = true;
  request.sampler = greedy();
  auto done = std::make_shared<std::promise<Answered>>();
  auto answered = std::make_shared<Answered>();
  std::future<Answered> future = done->get_future();
  scheduler.submit(std::move(request), [done, answered, lease](const ServeEvent& event) {
    for (const ServeToken& token : event.tokens) answered->tokens.push_back(token.chosen.token);
    if (!event.last()) return;
    answered->error = event.error;
    done->set_value(*answered);
  });
  return future;
}

std::vector<TokenId> prompt_of(std::size_t number, int length = 40) {
  return joined({static_cast<TokenId>(number * 7 % 200)}, some_tokens(length));
}

class ModelHouseTest : public ::testing::Test {
protected:
  void SetUp() override {
    for (std::uint32_t i = 0; i < kModels; ++i)
      places_.push_back({kNames[i], folder_.write(kNames[i] + ".gguf", tiny_model(kShape, i + 1))});
  }

  HouseOptions options() const {
    HouseOptions options;
    options.model.context = 128;  // more pushes weights out
    options.model.max_rows = 64;
    options.scheduler.context = kContext;
    return options;
  }

  struct House {
    House(std::vector<HousePlace> places, Bytes limit, HouseOptions options)
        : ledger(limit), house(std::move(places), ledger, pool, std::move(options)) {
      house.open();
    }
    ServedModels::Lease lease(std::size_t model) {
      std::promise<std::pair<ServedModels::Lease, std::string>> loaded;
      house.load(kNames[model], [&](ServedModels::Lease lease, const std::string& error) {
        loaded.set_value({std::move(lease), error});
      });
      auto [lease, error] = loaded.get_future().get();
      this->error = error;
      return lease;
    }
    std::future<Answered> begin(std::size_t model, std::vector<TokenId> prompt, std::size_t max_tokens = 12) {
      const ServedModels::Lease held = lease(model);
      return ask(held->scheduler, std::move(prompt), max_tokens, held);
    }
    ModelState state(std::size_t model) { return house.states()[model]; }

    Ledger ledger;
    ThreadPool pool{2};
    ModelHouse house;
    std::string error;
  };

  /// What the model says when it has the machine to itself.
  Answered alone(std::size_t model, const std::vector<TokenId>& prompt, std::size_t max_tokens = 12) {
    Ledger ledger;
    ThreadPool pool(2);
    const auto loaded = Model::load(places_[model].path, ledger, pool, {.max_rows = 64});
    Scheduler scheduler(*loaded, ledger, {.context = kContext});
    return ask(scheduler, prompt, max_tokens).get();
  }

  /// A budget for all of this and the weights of so many models, all being of one size.
  Bytes budget_for(double models) { return budget_for(models, options()); }
  Bytes budget_for(double models, const HouseOptions& options) {
    House all(places_, Ledger::kUnlimited, options);
    for (std::size_t i = 0; i < kModels; ++i) all.begin(i, prompt_of(i)).get();
    // Their huge pages are not full: that is not part of what the weights need.
    Bytes others = all.ledger.report().used;
    for (std::size_t i = 0; i < kModels; ++i) others -= all.state(i).weights;
    return others + static_cast<Bytes>(models * static_cast<double>(all.state(0).weights_all));
  }

  TemporaryFolder folder_;
  std::vector<HousePlace> places_;
};

TEST_F(ModelHouseTest, TheSameTokensAsAloneAndNeverOverTheLimit) {
  std::vector<Answered> expected;
  for (std::size_t i = 0; i < kModels; ++i) expected.push_back(alone(i, prompt_of(i)));
  EXPECT_NE(expected[0].tokens, expected[1].tokens);
  const Bytes limit = budget_for(1.5);
  House h(places_, limit, options());
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < kModels; ++i) {
      EXPECT_EQ(h.begin(i, prompt_of(i)).get(), expected[i]) << round << " " << i;
      EXPECT_EQ(h.state(i).state, "hot");
    }
  EXPECT_LE(h.ledger.report().peak, limit);
}

TEST_F(ModelHouseTest, AChangeToAWarmModelReadsWhatItLacks) {
  House h(places_, budget_for(1.5), options());
  // The third is used once, and has nothing left after these.
  for (const std::size_t i : {2u, 0u, 1u, 0u, 1u, 0u}) h.begin(i, prompt_of(i)).get();
  for (int round = 0; round < 2; ++round)
    for (std::size_t i : {1u, 0u}) {
      const ModelState before = h.state(i);
      EXPECT_EQ(before.state, "warm");
      h.begin(i, prompt_of(i)).get();
      const ModelState after = h.state(i);
      EXPECT_EQ(after.switches, before.switches + 1);
      // In f32 a weight is as large in the file as in memory.
      EXPECT_GT(after.switch_bytes, 0u);
      EXPECT_LE(after.switch_bytes, after.weights_all - before.weights + kMiB);
      EXPECT_LT(after.switch_bytes, after.weights_all * 3 / 4);
    }
}

TEST_F(ModelHouseTest, ModelsThatFitTogetherAreReadOnce) {
  House h(places_, Ledger::kUnlimited, options());
  for (std::size_t i = 0; i < kModels; ++i) h.begin(i, prompt_of(i)).get();
  for (std::size_t i = 0; i < kModels; ++i) {
    h.begin(i, prompt_of(i)).get();
    EXPECT_EQ(h.state(i).switch_bytes, 0u);
    EXPECT_EQ(h.state(i).switches, 2u);
  }
}

TEST_F(ModelHouseTest, RequestsOfAllAtTheSameTime) {
  constexpr std::size_t kEach = 4;
  std::vector<Answered> expected;
  for (std::size_t i = 0; i < kModels * kEach; ++i) expected.push_back(alone(i % kModels, prompt_of(i)));
  const Bytes limit = budget_for(1.5);
  House h(places_, limit, options());
  std::vector<std::future<Answered>> answers;
  for (std::size_t i = 0; i < kModels * kEach; ++i) answers.push_back(h.begin(i % kModels, prompt_of(i)));
  for (std::size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].get(), expected[i]) << i;
  EXPECT_LE(h.ledger.report().peak, limit);
  const SchedulerStats stats = h.house.stats();
  EXPECT_EQ(stats.finished, answers.size());
  EXPECT_EQ(h.house.energy_load().tokens, 12 * answers.size());
}

TEST_F(ModelHouseTest, MemoryOfOthersRequestsIsTakenWhenThereIsNoOther) {
  const auto long_prompt = [](std::size_t i) { return prompt_of(i, 400); };
  std::vector<Answered> expected;
  for (std::size_t i = 0; i < 9; ++i) expected.push_back(alone(i % kModels, long_prompt(i), 60));
  HouseOptions small = options();
  small.model.kv_swap.space = 256 * kMiB;
  small.model.kv_swap.group = 64 * kKiB;
  // What weights leave is too little for KV of all requests.
  const Bytes limit = budget_for(0.5, small);
  House h(places_, limit, small);
  std::vector<std::future<Answered>> answers;
  for (std::size_t i = 0; i < expected.size(); ++i) answers.push_back(h.begin(i % kModels, long_prompt(i), 60));
  for (std::size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].get(), expected[i]) << i;
  EXPECT_LE(h.ledger.report().peak, limit);
}

TEST_F(ModelHouseTest, AnotherBudgetWhileAllAreUsed) {
  const Bytes all = budget_for(3.2), some = budget_for(0.5);
  std::vector<Answered> expected;
  for (std::size_t i = 0; i < kModels; ++i) expected.push_back(alone(i, prompt_of(i)));
  House h(places_, all, options());
  for (const Bytes budget : {some, all, some}) {
    std::vector<std::future<Answered>> answers;
    for (std::size_t i = 0; i < kModels; ++i) answers.push_back(h.begin(i, prompt_of(i)));
    h.house.resize(budget);
    EXPECT_LE(h.ledger.report().used, budget);
    EXPECT_EQ(h.ledger.report().limit, budget);
    for (std::size_t i = 0; i < kModels; ++i) EXPECT_EQ(answers[i].get(), expected[i]);
  }
  EXPECT_THROW(h.house.resize(kMiB), Error);
  EXPECT_EQ(h.begin(1, prompt_of(1)).get(), expected[1]);
}

TEST_F(ModelHouseTest, MoreThanMayBeLoadedLeaveWhenNobodyUsesThem) {
  HouseOptions one = options();
  one.most_loaded = 1;
  House h(places_, Ledger::kUnlimited, one);
  const auto states = [&] {
    std::string all;
    for (std::size_t i = 0; i < kModels; ++i) all += h.state(i).state == "cold" ? 'c' : 'l';
    return all;
  };
  const Answered expected = alone(1, prompt_of(1));
  EXPECT_EQ(states(), "lcc");
  EXPECT_EQ(h.begin(1, prompt_of(1)).get(), expected);
  EXPECT_EQ(states(), "clc");
  const std::uint64_t finished = h.house.stats().finished;
  EXPECT_EQ(finished, 1u);
  {
    const ServedModels::Lease used = h.lease(1);
    h.lease(2);
    EXPECT_EQ(states(), "cll") << "one that is in use stays";
  }
  h.lease(0);
  EXPECT_EQ(states(), "lcc");
  EXPECT_EQ(h.house.stats().finished, finished) << "what it did is not forgotten";
  EXPECT_EQ(h.begin(1, prompt_of(1)).get(), expected);
}

TEST_F(ModelHouseTest, AFileThatIsBrokenLater) {
  House h(places_, Ledger::kUnlimited, options());
  folder_.write("two.gguf", "nothing");
  EXPECT_EQ(h.lease(1), nullptr);
  EXPECT_NE(h.error.find("two.gguf"), std::string::npos) << h.error;
  EXPECT_EQ(h.begin(0, prompt_of(0)).get(), alone(0, prompt_of(0)));
}

TEST_F(ModelHouseTest, WhatCannotBe) {
  Ledger ledger;
  ThreadPool pool(1);
  places_[2].name = places_[0].name;
  EXPECT_THROW(ModelHouse(places_, ledger, pool, options()), Error);
  places_[2] = {"three", folder_.file("missing.gguf")};
  EXPECT_THROW(ModelHouse(places_, ledger, pool, options()), IoError);
  places_.pop_back();
  Ledger small(kMiB);
  ModelHouse house(places_, small, pool, options());
  EXPECT_THROW(house.open(), Error);
}

TEST(TextInTest, FindsAFieldWithoutReadingTheRest) {
  const auto model_in = [](const std::string& body) { return text_in(body, "model"); };
  EXPECT_EQ(model_in(R"({"model": "a", "messages": [)"), "a");
  EXPECT_EQ(model_in(R"({"messages": [{"model": "b", "x": ["model"]}], "stream": true, "model": "a"})"), "a");
  EXPECT_EQ(model_in(R"({"name": "a"})"), "");
  EXPECT_EQ(model_in(R"({"model": 3})"), "");
  EXPECT_EQ(model_in(R"({"model": {"model": "b"}})"), "");
  EXPECT_EQ(model_in(R"(["model", "a"])"), "");
  EXPECT_EQ(model_in("{"), "");
  EXPECT_EQ(model_in(std::string(1000, '[')), "");
}

}  // namespace
}  // namespace snug
