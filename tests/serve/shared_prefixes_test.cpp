// Replicas that share what they have read: the same answers with fewer tokens to read, and whatever Redis does,
// answers.

#include "serve/shared_prefixes.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "serve/scheduler.hpp"
#include "support/fake_redis.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

struct Answer {
  std::vector<TokenId> tokens;
  std::size_t cached = 0;
  std::string error;
};

std::vector<TokenId> prompt_of(int index, int common = 600, int own = 20) {
  std::vector<TokenId> tokens = some_tokens(common);
  for (int i = 0; i < own; ++i) tokens.push_back((i * 13 + index * 7) % 200);
  return tokens;
}

struct Kind {
  std::string_view kv = "";
  bool hybrid = false;
  std::uint32_t layers = 2;
};

SharedOptions options_of(std::chrono::milliseconds wait) {
  SharedOptions options;
  options.wait = wait;
  return options;
}

/// A server of its own. Without a Redis it shares nothing.
struct Replica {
  explicit Replica(FakeRedis* redis, Kind kind = {}, std::chrono::milliseconds wait = 60s,
                   Bytes spare = Ledger::kUnlimited)
      : engine({.layers = kind.layers, .context = 1024, .hybrid = kind.hybrid}, {.max_rows = 64, .context = 1024}, 2,
               kind.kv) {
    if (redis) shared = std::make_shared<SharedPrefixes>(std::make_unique<FakeLink>(*redis), options_of(wait));
    if (spare != Ledger::kUnlimited) engine.ledger.set_limit(engine.ledger.report().used + spare);
    scheduler =
        std::make_unique<Scheduler>(engine.model, engine.ledger, SchedulerOptions{.context = 1024, .shared = shared});
  }
  std::future<Answer> begin(std::vector<TokenId> prompt, std::size_t max_tokens = 12) {
    ServeRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.ignore_end = true;
    request.sampler.temperature = 0;
    auto done = std::make_shared<std::promise<Answer>>();
    auto answer = std::make_shared<Answer>();
    scheduler->submit(std::move(request), [done, answer](const ServeEvent& event) {
      for (const ServeToken& token : event.tokens) answer->tokens.push_back(token.chosen.token);
      if (!event.last()) return;
      answer->cached = event.usage.cached_tokens;
      answer->error = event.error;
      done->set_value(*answer);
    });
    return done->get_future();
  }
  Answer ask(std::vector<TokenId> prompt, std::size_t max_tokens = 12) {
    return begin(std::move(prompt), max_tokens).get();
  }
  /// Until so many sequences were published.
  void wait_for_published(std::uint64_t count) {
    while (shared->stats().published < count) std::this_thread::sleep_for(1ms);
  }
  TinyEngine engine;
  std::shared_ptr<SharedPrefixes> shared;
  std::unique_ptr<Scheduler> scheduler;
};

class SharedPrefixesTest : public ::testing::TestWithParam<Kind> {};

TEST_P(SharedPrefixesTest, WhatOneHasReadTheOtherNeedNotRead) {
  FakeRedis redis;
  Replica first(&redis, GetParam()), second(&redis, GetParam()), alone(nullptr, GetParam());
  const auto prompt = prompt_of(1);
  // One token is chosen and none read, so that there is the prompt's end alone: codecs cannot go back to it.
  EXPECT_EQ(first.ask(prompt, 1).cached, 0u);
  first.wait_for_published(1);
  EXPECT_EQ(first.shared->stats().published, 1u);
  const std::vector<TokenId> longer = joined(prompt, {5, 6, 7, 8});
  const Answer got = second.ask(longer), expected = alone.ask(longer);
  EXPECT_EQ(got.error, "");
  EXPECT_GE(got.cached, prompt.size() - kPageTokens);
  EXPECT_EQ(got.tokens, expected.tokens);
  const SharedStats stats = second.shared->stats();
  EXPECT_EQ(stats.hits, 1u);
  EXPECT_EQ(stats.received, first.shared->stats().sent);
  EXPECT_EQ(stats.errors + stats.refused + stats.late, 0u);
}

INSTANTIATE_TEST_SUITE_P(Kv, SharedPrefixesTest,
                         ::testing::Values(Kind{}, Kind{"kivi-2"}, Kind{"q8,cq-1@256"}, Kind{"", true}));

TEST(SharedPrefixesTest, OnlyWhatIsInCommonComes) {
  FakeRedis redis;
  Replica first(&redis), second(&redis), alone(nullptr);
  first.ask(prompt_of(1));
  first.wait_for_published(1);
  const Answer got = second.ask(prompt_of(2));
  EXPECT_GE(got.cached, 600u);
  EXPECT_EQ(got.tokens, alone.ask(prompt_of(2)).tokens);
  // What Redis has is not sent again, nor what is hardly longer.
  first.ask(joined(prompt_of(1), some_tokens(100)));
  first.ask(joined(prompt_of(1), some_tokens(300)));
  first.wait_for_published(2);
  EXPECT_EQ(first.shared->stats().published, 2u);
}

TEST(SharedPrefixesTest, ManyWhoWaitForTheSameGetItOnce) {
  FakeRedis redis;
  Replica first(&redis), second(&redis), alone(nullptr);
  first.ask(prompt_of(0));
  first.wait_for_published(1);
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 16; ++i) answers.push_back(second.begin(prompt_of(i)));
  for (int i = 0; i < 16; ++i) {
    const Answer got = answers[static_cast<std::size_t>(i)].get();
    EXPECT_GE(got.cached, 600u) << i;
    EXPECT_EQ(got.tokens, alone.ask(prompt_of(i)).tokens) << i;
  }
  EXPECT_EQ(second.shared->stats().misses, 0u);
  // Each who asked has read the head; pages came once.
  std::uint64_t sizes[2];
  std::memcpy(sizes, redis.values.at(redis.keys("m").front()).data(), sizeof sizes);
  EXPECT_LE(second.shared->stats().received, first.shared->stats().sent + 15 * sizes[1]);
}

TEST(SharedPrefixesTest, DamageIsRefusedWhereverItIs) {
  FakeRedis intact;
  {
    Replica first(&intact);
    first.ask(prompt_of(1));
    first.wait_for_published(1);
  }
  const auto prompt = joined(prompt_of(1), {1});
  const Answer expected = Replica(nullptr).ask(prompt);
  std::uint64_t refused = 0;
  for (const auto& [key, value] : intact.values)
    for (const std::string& damaged :
         {value.substr(0, value.size() / 2), std::string(), std::string(value.size(), 'x'),
          value.substr(0, 20) + '\x7f' + value.substr(std::min<std::size_t>(value.size(), 21))}) {
      FakeRedis redis;
      redis.values = intact.values;
      redis.values[key] = damaged;
      Replica second(&redis);
      const Answer got = second.ask(prompt);
      ASSERT_EQ(got.tokens, expected.tokens) << key;
      refused += second.shared->stats().refused;
    }
  EXPECT_GE(refused, 4 * (intact.keys("p").size() + intact.keys("m").size()));
}

TEST(SharedPrefixesTest, ARedisThatDiesAtAnyPointFailsNobody) {
  const auto prompt = joined(prompt_of(1), {1});
  const Answer expected = Replica(nullptr).ask(prompt);
  for (std::size_t answers = 0; answers < 90; ++answers) {
    FakeRedis redis;
    Replica first(&redis), second(&redis);
    {
      const std::lock_guard lock(redis.mutex);
      redis.answers = answers;
    }
    ASSERT_EQ(first.ask(prompt_of(1)).error, "");
    const Answer got = second.ask(prompt);
    ASSERT_EQ(got.tokens, expected.tokens) << answers;
  }
}

TEST(SharedPrefixesTest, NobodyWaitsForARedisThatDoesNotAnswer) {
  FakeRedis redis;
  const Answer expected = Replica(nullptr).ask(prompt_of(1));
  redis.stop_at("*");
  Replica replica(&redis, {}, 20ms);
  const Answer got = replica.ask(prompt_of(1));  // would never return
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_EQ(replica.shared->stats().late, 1u);
  redis.stop_at("");
  // What was kept is offered when somebody asks again.
  while (replica.shared->stats().published == 0) replica.ask(prompt_of(1)), std::this_thread::sleep_for(1ms);
}

TEST(SharedPrefixesTest, WhatIsBeingSentTakesNoMemoryFromRequests) {
  FakeRedis redis;
  const Kind many{"", false, 12};
  Replica alone(nullptr, many);
  // Room for one sequence of full context and half of another, and what is on its way.
  Replica replica(&redis, many, 20ms, alone.engine.model.kv_bytes(1024) * 3 / 2 + 4 * kMiB);
  redis.stop_at("SET");
  replica.ask(prompt_of(0, 0, 900));
  redis.wait_for_held();
  for (int i = 1; i < 4; ++i) {
    const std::vector<TokenId> prompt = prompt_of(i, 0, 900);
    const Answer got = replica.ask(prompt, 60);
    EXPECT_EQ(got.error, "");
    EXPECT_EQ(got.tokens, alone.ask(prompt, 60).tokens);
  }
  redis.stop_at("");
  while (replica.shared->stats().dropped == 0) std::this_thread::sleep_for(1ms);
}

TEST(SharedPrefixesTest, WithoutMemoryForItNothingIsShared) {
  FakeRedis redis;
  Replica replica(&redis, {}, 60s, 3 * kMiB);
  EXPECT_EQ(replica.ask(prompt_of(1, 100, 0)).error, "");
  EXPECT_TRUE(redis.values.empty());
}

}  // namespace
}  // namespace snug
