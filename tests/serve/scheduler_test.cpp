// Requests that share a model get what each would get alone: in a batch, from what others have read, after giving their
// memory back.

#include "serve/scheduler.hpp"

#include <gtest/gtest.h>

#include <future>

#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct Result {
  std::vector<TokenId> tokens;
  std::string text;
  ServeEvent last;
};

ServeRequest request_of(std::vector<TokenId> prompt, std::size_t max_tokens, float temperature = 0) {
  ServeRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.ignore_end = true;
  request.sampler.temperature = temperature;
  request.sampler.seed = 5;
  return request;
}

/// A request under way.
class Pending {
public:
  Pending(Scheduler& scheduler, ServeRequest request) {
    auto done = std::make_shared<std::promise<Result>>();
    result_ = done->get_future();
    id = scheduler.submit(std::move(request), [done, result = std::make_shared<Result>()](const ServeEvent& event) {
      result->text += event.text;
      for (const ServeToken& token : event.tokens) result->tokens.push_back(token.chosen.token);
      if (!event.last()) return;
      result->last = event;
      done->set_value(std::move(*result));
    });
  }
  Result get() { return result_.get(); }
  std::uint64_t id = 0;

private:
  std::future<Result> result_;
};

std::vector<TokenId> prompt_of(int index, int common, int own) {
  std::vector<TokenId> tokens = some_tokens(common);
  for (int i = 0; i < own; ++i) tokens.push_back((i * 13 + index * 7) % 200);
  return tokens;
}

class ServeTest : public ::testing::TestWithParam<std::string_view> {
protected:
  struct Server {
    /// `spare`: bytes beside what the loaded model takes.
    explicit Server(std::string_view kv, Bytes spare = Ledger::kUnlimited, std::uint32_t layers = 2,
                    KvSwapOptions swap = {}, SchedulerOptions options = {})
        : engine({.layers = layers, .context = 1024}, {.max_rows = 64, .context = 1024, .kv_swap = swap}, 2, kv),
          limit(spare == Ledger::kUnlimited ? spare : engine.ledger.report().used + spare),
          scheduler(engine.model, limited(), with_context(options)) {}
    static SchedulerOptions with_context(SchedulerOptions options) {
      options.context = 1024;
      return options;
    }
    Ledger& limited() {
      engine.ledger.set_limit(limit);
      return engine.ledger;
    }
    TinyEngine engine;
    Bytes limit;
    Scheduler scheduler;
  };
  static constexpr std::uint32_t kLayers = 12;  ///< such that a few slabs of memory matter
  static Bytes kv_bytes(std::size_t tokens) {
    return Server("", Ledger::kUnlimited, kLayers).engine.model.kv_bytes(tokens);
  }
  static std::vector<TokenId> alone(std::string_view kv, const ServeRequest& request, std::uint32_t layers = 2) {
    Server server(kv, Ledger::kUnlimited, layers);
    return Pending(server.scheduler, request).get().tokens;
  }
};

TEST_P(ServeTest, AnAnswerIsTheSameAloneInABatchAndFromAWarmPrefix) {
  std::vector<ServeRequest> requests;
  for (int i = 0; i < 16; ++i)
    requests.push_back(
        request_of(prompt_of(i, 300, 5 + 3 * i), 20 + static_cast<std::size_t>(i), i % 2 == 0 ? 0 : 0.9f));
  Server server(GetParam());
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<Pending>> pending;
    for (const ServeRequest& request : requests)
      pending.push_back(std::make_unique<Pending>(server.scheduler, request));
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const Result result = pending[i]->get();
      EXPECT_EQ(result.last.reason, StopReason::max_tokens);
      EXPECT_EQ(result.tokens, alone(GetParam(), requests[i])) << i << ", round " << round;
      EXPECT_GE(result.last.usage.cached_tokens, round == 0 && i == 0 ? 0u : 300u);
    }
  }
  // What all have in common was read once, and the prompts in the first round only.
  std::size_t own = 300;
  for (const ServeRequest& request : requests) own += request.prompt.size() - 300;
  EXPECT_LE(server.scheduler.stats().prompt_tokens, own + 2 * requests.size());
}

TEST_F(ServeTest, TheNextTurnFindsTheAnswerToo) {
  Server server("");
  const ServeRequest first = request_of(some_tokens(200), 60);
  const std::vector<TokenId> answer = Pending(server.scheduler, first).get().tokens;
  const ServeRequest second = request_of(joined(joined(first.prompt, answer), {1, 2, 3}), 10);
  const Result next = Pending(server.scheduler, second).get();
  EXPECT_EQ(next.last.usage.cached_tokens, 200 + 60 - 1u);  // the last one was never fed
  EXPECT_EQ(next.tokens, alone("", second));
}

TEST_F(ServeTest, WhereItIsKnownWhatIsSharedNothingElseIsKept) {
  Server server("");
  ServeRequest first = request_of(prompt_of(1, 300, 50), 10);
  first.kept = {200, 300};
  const Result whole = Pending(server.scheduler, first).get();
  EXPECT_EQ(whole.tokens, alone("", request_of(prompt_of(1, 300, 50), 10)));
  const Result again = Pending(server.scheduler, first).get();
  EXPECT_EQ(again.last.usage.cached_tokens, 300u);  // neither the prompt's end nor the answer's
  EXPECT_EQ(again.tokens, whole.tokens);
}

TEST_F(ServeTest, AHybridModelSharesToo) {
  TinyEngine engine({.context = 512, .hybrid = true}, {.max_rows = 64, .context = 512});
  std::vector<std::vector<TokenId>> together;
  {
    Scheduler scheduler(engine.model, engine.ledger, {.context = 512});
    std::vector<std::unique_ptr<Pending>> pending;
    for (int i = 0; i < 4; ++i)
      pending.push_back(std::make_unique<Pending>(scheduler, request_of(prompt_of(i, 200, 10), 12)));
    for (auto& p : pending) together.push_back(p->get().tokens);
    // Those that come when the first was read already go on from where its last call began.
    EXPECT_LE(scheduler.stats().prompt_tokens, 210 + 3 * 18u);
  }
  for (int i = 0; i < 4; ++i) {
    Scheduler scheduler(engine.model, engine.ledger, {.context = 512});
    EXPECT_EQ(Pending(scheduler, request_of(prompt_of(i, 200, 10), 12)).get().tokens,
              together[static_cast<std::size_t>(i)]);
  }
}

TEST_F(ServeTest, WhatWasReadIsThereAfterARestart) {
  const TemporaryFolder folder;
  const auto run = [&](std::string_view kv, const ServeRequest& request, const std::string& kept) {
    TinyEngine engine({.context = 1024}, {.max_rows = 64, .context = 1024}, 2, kv);
    Scheduler scheduler(engine.model, engine.ledger, {.context = 1024, .kv_folder = kept});
    return Pending(scheduler, request).get();
  };
  for (const std::string_view kv : {"bf16", "kivi-2"}) {
    const ServeRequest first = request_of(prompt_of(1, 300, 20), 10), second = request_of(prompt_of(2, 300, 30), 10);
    EXPECT_EQ(run(kv, first, folder.file("kept")).last.usage.cached_tokens, 0u);
    const Result again = run(kv, first, folder.file("kept"));
    EXPECT_GE(again.last.usage.cached_tokens, first.prompt.size() - 1 - (kv == "bf16" ? 0 : kPageTokens));
    EXPECT_EQ(again.tokens, run(kv, first, "").tokens);
    EXPECT_EQ(run(kv, second, folder.file("kept")).tokens, run(kv, second, "").tokens);
  }
}

TEST_F(ServeTest, WithLittleMemoryAllAreAnsweredAndNothingElseChanges) {
  const Bytes one = kv_bytes(400);
  std::vector<ServeRequest> requests;
  for (int i = 0; i < 12; ++i) requests.push_back(request_of(prompt_of(i, 3, 200), 150));
  Server server("", 5 * one / 2, kLayers);
  std::vector<std::unique_ptr<Pending>> pending;
  for (const ServeRequest& request : requests) pending.push_back(std::make_unique<Pending>(server.scheduler, request));
  for (std::size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(pending[i]->get().tokens, alone("", requests[i], kLayers)) << i;
  EXPECT_LE(server.engine.ledger.report().used, server.limit);
  Server small("", one / 4, kLayers);
  EXPECT_NE(Pending(small.scheduler, requests[0]).get().last.error, "");
}

TEST_F(ServeTest, WhoWasExpectedToWriteLessGivesWay) {
  Server server("", 2 * kv_bytes(600), kLayers);
  // Short answers first: the next ones are expected to be short too.
  for (int i = 0; i < 40; ++i) Pending(server.scheduler, request_of(prompt_of(i, 3, 20), 4)).get();
  std::vector<ServeRequest> requests;
  for (int i = 0; i < 6; ++i) requests.push_back(request_of(prompt_of(i, 3, 100), 480));
  std::vector<std::unique_ptr<Pending>> pending;
  for (const ServeRequest& request : requests) pending.push_back(std::make_unique<Pending>(server.scheduler, request));
  for (std::size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(pending[i]->get().tokens, alone("", requests[i], kLayers)) << i;
  EXPECT_GT(server.scheduler.stats().preempted, 0u);
}

TEST_F(ServeTest, WhoIsLeftAloneHasTheRoomOfTheOthersLogits) {
  const std::size_t row = Server("").engine.model.config().vocab_size * sizeof(float);
  // Beside its pages it takes about 32 rows' worth, and 32 rows of logits are too much.
  Server server("", kv_bytes(1000) + 48 * row, kLayers);
  std::vector<std::unique_ptr<Pending>> pending;
  for (int i = 0; i < 32; ++i)
    pending.push_back(std::make_unique<Pending>(server.scheduler, request_of(prompt_of(i, 3, 4), 16)));
  for (const auto& p : pending) EXPECT_EQ(p->get().last.error, "");
  const ServeRequest last = request_of(prompt_of(50, 3, 100), 890);
  const Result result = Pending(server.scheduler, last).get();
  EXPECT_EQ(result.last.error, "");
  EXPECT_EQ(result.tokens, alone("", last, kLayers));
}

TEST_P(ServeTest, WhoGoesToTheDiskComesBackWithTheSameAnswer) {
  // Turns of a few tokens: each is swapped out and in again and again.
  std::vector<ServeRequest> requests;
  std::vector<std::vector<TokenId>> expected;
  for (int i = 0; i < 5; ++i) {
    requests.push_back(request_of(prompt_of(i, 100, 100), 90));
    expected.push_back(alone(GetParam(), requests.back(), kLayers));
  }
  const KvSwapOptions by_page{.space = kGiB, .group = 0, .background = false, .keep_copies = false};
  for (const KvSwapOptions& swap :
       {KvSwapOptions{.space = kGiB}, by_page, KvSwapOptions{.space = 3 * kMiB}, KvSwapOptions{}}) {
    Server server(GetParam(), 2 * kv_bytes(300) + kMiB, kLayers, swap, {.turn = 30});
    std::vector<std::unique_ptr<Pending>> pending;
    for (const ServeRequest& request : requests)
      pending.push_back(std::make_unique<Pending>(server.scheduler, request));
    for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(pending[i]->get().tokens, expected[i]) << i;
    const SchedulerStats stats = server.scheduler.stats();
    EXPECT_GT(stats.preempted, 0u);
    EXPECT_LE(server.engine.ledger.report().peak, server.limit);
    // With room on the disk nothing is read twice.
    EXPECT_LE(stats.prompt_tokens, swap.space == kGiB ? 100 + 5 * 101u : 1'000'000u);
  }
}

TEST_F(ServeTest, WhatIsKeptGoesToTheDiskAndComesBack) {
  const Bytes one = kv_bytes(400);
  for (const Eviction eviction : {Eviction::least_recent, Eviction::least_cost}) {
    Server server("", 5 * one / 2, kLayers, {.space = kGiB}, {.eviction = eviction});
    for (int round = 0; round < 2; ++round)
      for (int i = 0; i < 6; ++i) {
        const ServeRequest request = request_of(prompt_of(i, 0, 350), 20);
        const Result result = Pending(server.scheduler, request).get();
        EXPECT_EQ(result.tokens, alone("", request, kLayers)) << i;
        EXPECT_EQ(result.last.usage.cached_tokens, round == 0 ? 0u : request.prompt.size() - 1) << i;
      }
  }
}

TEST_F(ServeTest, LowerPrioritiesComeFirstAndOwnersGetEqualShares) {
  Server server("", Ledger::kUnlimited, 2, {}, {.max_batch = 1});
  std::vector<std::string> order;
  std::mutex mutex;
  std::vector<std::future<void>> done;
  // The first one has begun, and goes on when all the others are there.
  std::promise<void> begun, all_there;
  bool waited = false;
  const auto submit = [&](const std::string& name, ServeRequest request) {
    auto finished = std::make_shared<std::promise<void>>();
    done.push_back(finished->get_future());
    server.scheduler.submit(std::move(request), [&, name, finished](const ServeEvent& event) {
      if (!waited) {
        waited = true;
        begun.set_value();
        all_there.get_future().wait();
      }
      if (!event.last()) return;
      const std::lock_guard lock(mutex);
      order.push_back(name);
      finished->set_value();
    });
  };
  const auto of = [](int i, const std::string& owner, int priority) {
    ServeRequest request = request_of(prompt_of(i, 0, 50), 40);
    request.owner = owner, request.priority = priority;
    return request;
  };
  ServeRequest long_one = of(0, "a", 0);
  long_one.max_tokens = 500;
  submit("first", std::move(long_one));
  begun.get_future().wait();
  for (int i = 1; i <= 3; ++i) submit("a", of(i, "a", 0));
  submit("b", of(4, "b", 0));
  submit("late", of(5, "a", 5));
  submit("urgent", of(6, "a", -1));
  all_there.set_value();
  for (auto& d : done) d.get();
  // The urgent one takes the place of the first, and the owner who had nothing comes before the other's next ones.
  EXPECT_EQ(order.front(), "urgent");
  EXPECT_EQ(order.back(), "late");
  EXPECT_LT(std::find(order.begin(), order.end(), "b") - order.begin(), 3);
}

TEST_F(ServeTest, LimitsAndDeadlines) {
  Server server("", Ledger::kUnlimited, kLayers, {}, {.max_batch = 1, .max_waiting = 3, .max_of_owner = 2});
  ServeRequest request = request_of(some_tokens(10), 100'000);
  request.owner = "a";
  request.deadline = std::chrono::milliseconds(20);
  Pending one(server.scheduler, request), two(server.scheduler, request);
  EXPECT_THROW(Pending(server.scheduler, request), TooManyRequests);
  request.owner = "b";
  Pending three(server.scheduler, request), four(server.scheduler, request);
  request.owner = "c";
  EXPECT_THROW(Pending(server.scheduler, request), TooManyRequests);
  for (Pending* pending : {&one, &two, &three, &four}) EXPECT_NE(pending->get().last.error, "");
  EXPECT_EQ(Pending(server.scheduler, request_of(some_tokens(10), 3)).get().tokens.size(), 3u);
}

TEST_F(ServeTest, RequestsEnd) {
  Server server("");
  EXPECT_THROW(server.scheduler.submit(request_of(some_tokens(1024), 5), [](const ServeEvent&) {}), ContextExceeded);
  EXPECT_THROW(server.scheduler.submit(request_of({100'000}, 5), [](const ServeEvent&) {}), Error);
  Pending endless(server.scheduler, request_of(some_tokens(10), 100'000)),
      other(server.scheduler, request_of(some_tokens(20), 5));
  EXPECT_EQ(other.get().last.reason, StopReason::max_tokens);
  server.scheduler.cancel(endless.id);
  EXPECT_EQ(endless.get().last.reason, StopReason::cancelled);
  const Result full = Pending(server.scheduler, request_of(some_tokens(1000), 100)).get();
  EXPECT_EQ(full.last.reason, StopReason::context_full);
  EXPECT_EQ(full.last.usage.generated_tokens, 24u);
  Pending cut(server.scheduler, request_of(some_tokens(10), 100'000));
  server.scheduler.stop();
  EXPECT_NE(cut.get().last.error, "");
  EXPECT_THROW(server.scheduler.submit(request_of(some_tokens(10), 5), [](const ServeEvent&) {}), Error);
}

TEST_F(ServeTest, StopStringsAndLogprobs) {
  Server server("");
  const Result whole = Pending(server.scheduler, request_of(some_tokens(50), 40)).get();
  ASSERT_GT(whole.text.size(), 10u);
  ServeRequest request = request_of(some_tokens(50), 40);
  request.stop = {whole.text.substr(5, 3)};
  request.logprobs = 3;
  const Result cut = Pending(server.scheduler, request).get();
  EXPECT_EQ(cut.last.reason, StopReason::stop_string);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(request.stop[0])));
  EXPECT_LT(cut.tokens.size(), whole.tokens.size());
  ASSERT_FALSE(cut.last.tokens.empty());
  for (const ServeToken& token : cut.last.tokens) {
    ASSERT_EQ(token.top.size(), 3u);
    EXPECT_EQ(token.top[0].token, token.chosen.token);
    EXPECT_EQ(token.top[0].logprob, token.chosen.logprob);
    EXPECT_GE(token.top[0].logprob, token.top[1].logprob);
    EXPECT_LE(token.top[0].logprob, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Kv, ServeTest, ::testing::Values("bf16", "kivi-2", "q8,cq-1@256"));

}  // namespace
}  // namespace snug
