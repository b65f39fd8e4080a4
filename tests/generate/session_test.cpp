// Sessions, samplers and the forward pass on a tiny model: the same answer however the work is split.

#include "generate/session.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "format/pack.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct SmallEngine : TinyEngine {
  explicit SmallEngine(unsigned threads = 2, std::size_t max_rows = 64, Bytes budget = Ledger::kUnlimited,
                       bool hybrid = false)
      : TinyEngine({.hybrid = hybrid}, {.max_rows = max_rows, .context = 128}, threads, "", budget) {}
};

struct Answer {
  std::vector<TokenId> tokens;
  std::uint64_t hash;
};

/// Greedily, past the end of the text.
Answer answer(Model& model, const std::string& prompt, std::size_t tokens, std::size_t context,
              std::size_t speculate = 0) {
  Session session(model, context, greedy());
  session.hash_logits(true);
  session.prompt(model.tokenizer().encode(prompt));
  GenerateOptions options;
  options.max_tokens = tokens;
  options.speculate = speculate;
  options.ignore_end = true;
  const GenerateResult result = session.generate(options, nullptr);
  return {result.tokens, session.stats().logits_hash};
}

const std::string kPrompt = "hello hello hello, is this the same answer? hello hello hello";

TEST(SessionTest, ThreadsChunksAndSpeculationDoNotChangeTheAnswer) {
  for (const bool hybrid : {false, true}) {
    SmallEngine plain(2, 64, Ledger::kUnlimited, hybrid);
    const Answer expected = answer(plain.model, kPrompt, 60, 256);
    EXPECT_EQ(expected.tokens.size(), 60u);
    for (const unsigned threads : {1u, 3u})
      for (const std::size_t rows : {1u, 7u, 64u})
        for (const std::size_t speculate : {0u, 5u}) {
          SmallEngine s(threads, rows, Ledger::kUnlimited, hybrid);
          const Answer actual = answer(s.model, kPrompt, 60, 256, speculate);
          EXPECT_EQ(actual.tokens, expected.tokens);
          EXPECT_EQ(actual.hash, expected.hash)
              << threads << " threads, " << rows << " rows, speculation " << speculate << ", hybrid " << hybrid;
        }
  }
}

TEST(SessionTest, CodedPagesDoNotDependOnHowWorkIsSplit) {
  const TemporaryFolder folder;
  const std::string file = tiny_model({.layers = 4, .context = 1024});
  std::string prompt;  // long enough that its own rows see several coded pages
  for (int i = 0; i < 18; ++i) prompt += kPrompt;
  const auto run = [&](std::string_view kv, unsigned threads, std::size_t rows, std::size_t speculate) {
    Ledger ledger(Ledger::kUnlimited);
    ThreadPool pool(threads);
    Transformer model(parse(file), ledger, pool, with_kv({.max_rows = rows, .context = 1024}, kv, folder));
    return answer(model, prompt, 150, 1024, speculate).hash;
  };
  const std::uint64_t plain = run("", 2, 64, 0);
  // The first waits for queries and for other layers.
  std::vector<std::string> names = kv_names();
  std::erase(names, "bf16");
  names.insert(names.end(), {"think-40/minicache", "kivi-2/aqua-2"});
  for (const std::string& name : names) {
    const std::uint64_t expected = run(name, 2, 512, 0);
    EXPECT_NE(expected, plain) << name;
    for (const std::size_t rows : {1u, 7u, 64u})
      EXPECT_EQ(run(name, 1, rows, 0), expected) << name << ", " << rows << " rows";
    EXPECT_EQ(run(name, 3, 200, 5), expected) << name << ", speculation";
  }
  EXPECT_NE(run("q8,cq-1@256", 2, 512, 0), run("q8", 2, 512, 0));
}

TEST(SessionTest, WhatWasTakenBackLeavesNoTraceInCodedPages) {
  const auto common = some_tokens(5 * kPageTokens + 45);
  const auto first = joined(common, std::vector<TokenId>(40, 7)), second = joined(common, std::vector<TokenId>(90, 9));
  for (const std::string_view name : {"think-40", "mikv-2", "mikv-2/minicache", "q4", "q8,kivi-2@256"}) {
    TinyEngine engine({.context = 1024}, {.max_rows = 64, .context = 1024}, 2, name);
    Session session(engine.model, 1024, greedy()), fresh(engine.model, 1024, greedy());
    session.prompt(first);
    EXPECT_EQ(go_on(session, second, 30), go_on(fresh, second, 30)) << name;
    EXPECT_LT(session.stats().prompt_tokens, first.size() + second.size() - 5 * kPageTokens) << name;
  }
}

/// A codec whose pages are coded after the call.
class Late final : public KvCodec {
public:
  explicit Late(std::shared_ptr<const KvCodec> codec) : codec_(std::move(codec)) {}
  std::size_t page_bytes(std::size_t layer) const override { return codec_->page_bytes(layer); }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    codec_->encode(place, heads, page);
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    codec_->decode(place, head, page, tiles);
  }
  bool late() const override { return true; }

private:
  std::shared_ptr<const KvCodec> codec_;
};

TEST(SessionTest, PagesCodedAfterTheCallAreSeenByTheSameRows) {
  const std::string file = tiny_model({.context = 1024}),
                    prompt = kPrompt + kPrompt + kPrompt + kPrompt + kPrompt + kPrompt;
  for (const std::size_t rows : {512u, 1u, 130u, 64u}) {
    const auto run = [&](bool late) {
      Ledger ledger(Ledger::kUnlimited);
      ThreadPool pool(2);
      ModelOptions options{.max_rows = rows, .context = 1024};
      options.kv_format = [&](std::shared_ptr<const KvModel> known) {
        KvFormat format = make_kv_format(parse_kv_choice("q4"), std::move(known));
        if (late) format = {"late", std::make_shared<Late>(format.keys), format.values};
        return format;
      };
      Transformer model(parse(file), ledger, pool, options);
      if (late && rows == 512) {
        const auto sequence = model.new_sequence(1024);
        const std::vector<Row> many(3 * kPageTokens + 1, Row{0, sequence.get(), false});
        EXPECT_EQ(model.most_rows(*sequence), many.size() - 1);
        EXPECT_THROW(model.forward(many, {}), Error);
      }
      return answer(model, prompt, 150, 1024, rows == 130 ? 5 : 0).hash;
    };
    EXPECT_EQ(run(true), run(false)) << rows;
  }
}

/// Logits of the last of `tokens`, fed one by one or at once.
std::vector<float> feed(Model& model, Sequence& sequence, std::span<const TokenId> tokens) {
  std::vector<float> logits(model.config().vocab_size);
  for (const TokenId token : tokens) {
    const Row row{token, &sequence, true};
    model.forward({&row, 1}, logits);
  }
  return logits;
}

TEST(SessionTest, AForkGoesOnAsIfItHadBeenFedFromTheStart) {
  for (const bool hybrid : {false, true})
    for (const std::string& name : kv_names()) {
      SCOPED_TRACE(name);
      TinyEngine engine({.context = 1024, .hybrid = hybrid}, {.max_rows = 64, .context = 1024}, 2, name);
      Transformer& model = engine.model;
      std::vector<TokenId> common = model.tokenizer().encode(kPrompt + kPrompt + kPrompt + kPrompt + kPrompt),
                           ends[] = {model.tokenizer().encode(kPrompt), model.tokenizer().encode("something else")};
      Session session(model, 1024, greedy());
      session.prompt(common);
      const auto other = session.fork();
      GenerateOptions options;
      options.max_tokens = 100;
      options.ignore_end = true;
      const auto from_start = [&](const std::vector<TokenId>& end) {
        Session alone(model, 1024, greedy());
        alone.prompt(joined(common, end));
        return alone.generate(options, nullptr).tokens;
      };
      for (const auto& [forked, end] : {std::pair{&session, &ends[0]}, std::pair{other.get(), &ends[1]}}) {
        forked->prompt(joined(common, *end));
        EXPECT_EQ(forked->generate(options, nullptr).tokens, from_start(*end));
      }
    }
}

TEST(SessionTest, ForksDecodeInOneBatch) {
  for (const bool hybrid : {false, true})
    for (const std::string& name : kv_names()) {
      SCOPED_TRACE(name);
      TinyEngine engine({.context = 1024, .hybrid = hybrid}, {.max_rows = 64, .context = 1024}, 2, name);
      Transformer& model = engine.model;
      std::vector<TokenId> common;
      for (int i = 0; i < 508; ++i) common.push_back(i * 7 % 200);  // some pages become cold at 512
      const auto root = model.new_sequence(1024);
      feed(model, *root, common);
      std::unique_ptr<Sequence> forks[] = {root->fork(), root->fork(), root->fork()};
      const std::size_t vocab = model.config().vocab_size;
      std::vector<float> logits(3 * vocab);
      std::vector<TokenId> fed[3];
      for (int step = 0; step < 12; ++step) {
        std::vector<Row> rows;
        for (int f = 0; f < 3; ++f) {
          fed[f].push_back((step * 31 + f * 50) % 200);
          rows.push_back({fed[f].back(), forks[f].get(), true});
        }
        model.forward(rows, logits);
      }
      for (std::size_t f = 0; f < 3; ++f) {
        const auto alone = model.new_sequence(1024);
        EXPECT_TRUE(std::ranges::equal(feed(model, *alone, joined(common, fed[f])),
                                       std::span(logits).subspan(f * vocab, vocab)));
      }
      EXPECT_EQ(root->length(), 508u);
    }
}

void write_pack_of(const std::string& path, ThreadPool& pool) {
  Ledger ledger(Ledger::kUnlimited);
  const auto model = Model::load(path, ledger, pool, {.load_weights = false});
  model->write_pack(pack_path(model->file().path()), [](Bytes, Bytes) {});
}

/// A model in ever smaller budgets gives the same logits; `least`: budgets that must do.
void expect_same_answer_in_any_budget(const TinyShape& shape, std::string_view policy, std::size_t least,
                                      bool packed = false) {
  const TemporaryFolder folder;
  const std::string path = folder.write("tiny.gguf", tiny_model(shape));
  ThreadPool pool(2);
  const auto run = [&](Bytes budget, LedgerReport& report) {
    Ledger ledger(budget);
    Transformer model(GgufFile::open(path), ledger, pool,
                      ModelOptions{.max_rows = 64, .context = 128, .expert_policy = std::string(policy)});
    const std::uint64_t hash = answer(model, kPrompt, 30, 256).hash;
    report = ledger.report();
    return hash;
  };
  LedgerReport report;
  const std::uint64_t expected = run(Ledger::kUnlimited, report);
  if (packed) {
    write_pack_of(path, pool);
    EXPECT_EQ(run(Ledger::kUnlimited, report), expected);
  }
  const Bytes all = report.peak, weights = report.by_tag[static_cast<std::size_t>(Tag::weights)];
  std::size_t fitted = 0;
  for (Bytes less = weights / 8; less < weights; less += weights / 8) {
    try {
      EXPECT_EQ(run(all - less, report), expected) << less;
      EXPECT_LE(report.peak, all - less);
      ++fitted;
    } catch (const OutOfBudget&) {
      EXPECT_GT(less, weights / 2);  // too small even to stream
    }
  }
  EXPECT_GE(fitted, least);
}

TEST(SessionTest, ABudgetSmallerThanTheWeightsGivesTheSameAnswer) {
  expect_same_answer_in_any_budget({.vocab = 512, .width = 256, .layers = 4, .ffn = 512}, kDefaultExpertPolicy, 4);
}

TEST(SessionTest, ExpertsThatAreNotAllInMemoryGiveTheSameAnswer) {
  for (const ExpertPolicyInfo& policy : expert_policies()) {
    SCOPED_TRACE(policy.name);
    expect_same_answer_in_any_budget({.width = 128, .layers = 4, .ffn = 144, .experts = 16, .used = 3}, policy.name, 4);
  }
}

TEST(SessionTest, APackGivesTheSameAnswer) {
  expect_same_answer_in_any_budget({.vocab = 512, .width = 256, .layers = 4, .ffn = 512}, kDefaultExpertPolicy, 4,
                                   true);
  expect_same_answer_in_any_budget({.width = 128, .layers = 4, .ffn = 144, .experts = 16, .used = 3},
                                   kDefaultExpertPolicy, 4, true);
}

TEST(SessionTest, AReadErrorAmongExpertsIsAnErrorEachTime) {
  const std::string file = tiny_model({.width = 128, .layers = 4, .ffn = 128, .experts = 16, .used = 3});
  ThreadPool pool(2);
  Ledger unlimited(Ledger::kUnlimited);
  const ModelOptions options{.max_rows = 64, .context = 128};
  ModelOptions planning = options;
  planning.load_weights = false;
  planning.plan_for = kGiB;
  const MemoryPlan plan = Transformer(parse(file), unlimited, pool, planning).plan(kGiB, 128);
  Ledger ledger(plan.used() - plan.weights.total / 4);
  constexpr Bytes kLost = 8 * 128 * 128 * sizeof(float);  // half of the experts of the last layer
  Transformer model(parse(file, file.size() - kLost), ledger, pool, options);
  const auto sequence = model.new_sequence(128);
  std::vector<Row> rows;
  for (TokenId t = 0; t < 64; ++t) rows.push_back({t * 4, sequence.get(), true});
  std::vector<float> logits(rows.size() * model.config().vocab_size);
  for (int i = 0; i < 3; ++i) EXPECT_THROW(model.forward(rows, logits), IoError);
  EXPECT_EQ(sequence->length(), 0u);
}

TEST(SessionTest, AnotherBudgetOnTheWayGivesTheSameAnswer) {
  const std::string file = tiny_model({.vocab = 512, .width = 256, .layers = 4, .ffn = 512});
  ThreadPool pool(2);
  const auto run = [&](bool resize, Bytes& all, Bytes& least) {
    Ledger ledger(kGiB);
    Transformer model(parse(file), ledger, pool, ModelOptions{.max_rows = 64, .context = 256});
    all = model.plan(kGiB, 256).used();
    least = model.plan(kGiB, 256).smallest;
    Session session(model, 256, greedy());
    session.hash_logits(true);
    session.prompt(model.tokenizer().encode(kPrompt));
    GenerateOptions options;
    options.max_tokens = 10;
    options.ignore_end = true;
    for (const Bytes budget : {kGiB, least, (all + least) / 2, all, least}) {
      session.generate(options, nullptr);
      if (!resize) continue;
      model.resize(budget);
      EXPECT_LE(ledger.report().used, budget);
      EXPECT_THROW(model.resize(least / 4), Error);
      EXPECT_EQ(ledger.report().limit, budget);
    }
    return session.stats().logits_hash;
  };
  Bytes all = 0, least = 0;
  const std::uint64_t expected = run(false, all, least);
  EXPECT_LT(least, all);
  EXPECT_EQ(run(true, all, least), expected);
}

TEST(SessionTest, APlanIsWhatLoadingDoes) {
  const std::string file = tiny_model({.vocab = 512, .width = 256, .layers = 4, .ffn = 512});
  ThreadPool pool(2);
  Ledger unlimited(Ledger::kUnlimited);
  const Transformer planner(parse(file), unlimited, pool,
                            ModelOptions{.max_rows = 64, .context = 128, .load_weights = false, .plan_for = kGiB});
  const MemoryPlan all = planner.plan(kGiB, 128);
  EXPECT_TRUE(all.weights.whole);
  EXPECT_EQ(all.streamed_bytes, 0u);
  for (Bytes budget = all.smallest; budget < all.used(); budget += (all.used() - all.smallest) / 5) {
    const MemoryPlan plan = planner.plan(budget, 128);
    ASSERT_TRUE(plan.fits());
    EXPECT_LE(plan.used(), budget);
    Ledger ledger(budget);
    const Transformer model(parse(file), ledger, pool, ModelOptions{.max_rows = 64, .context = 128});
    EXPECT_EQ(ledger.report().by_tag[static_cast<std::size_t>(Tag::weights)], plan.weights.memory());
  }
  Ledger small(all.smallest - 64 * kKiB);
  EXPECT_FALSE(planner.plan(small.report().limit, 128).fits());
}

TEST(SessionTest, BatchesDoNotChangeLogits) {
  SmallEngine s;
  const std::size_t vocab = s.model.config().vocab_size;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Row> rows;
  for (int i = 0; i < 20; ++i) {
    sequences.push_back(s.model.new_sequence(64));
    for (TokenId t = 0; t < 1 + i % 3; ++t) rows.push_back({t * 7 + i, sequences.back().get(), t == i % 3});
  }
  std::vector<float> together(20 * vocab), alone(vocab);
  s.model.forward(rows, together);
  for (int i = 0; i < 20; ++i) {
    const auto sequence = s.model.new_sequence(64);
    for (TokenId t = 0; t < 1 + i % 3; ++t) {
      const Row row{t * 7 + i, sequence.get(), true};
      s.model.forward(std::span(&row, 1), alone);
    }
    EXPECT_EQ(0, std::memcmp(alone.data(), together.data() + static_cast<std::size_t>(i) * vocab, vocab * 4)) << i;
  }
}

TEST(SessionTest, ANewPromptKeepsWhatItShares) {
  SmallEngine s;
  const Tokenizer& t = s.model.tokenizer();
  Session session(s.model, 256, greedy());
  session.hash_logits(true);
  session.prompt(t.encode("The first question, and the answer"));
  const std::size_t first = session.stats().prompt_tokens;
  session.prompt(t.encode("The first question, and something else"));
  EXPECT_LT(session.stats().prompt_tokens - first, 16u);
  GenerateOptions options;
  options.max_tokens = 10;
  options.ignore_end = true;
  const auto continued = session.generate(options, nullptr);
  Session fresh(s.model, 256, greedy());
  fresh.hash_logits(true);
  fresh.prompt(t.encode("The first question, and something else"));
  EXPECT_EQ(fresh.generate(options, nullptr).tokens, continued.tokens);
  EXPECT_EQ(fresh.stats().logits_hash, session.stats().logits_hash);
}

TEST(SessionTest, AFullContextSaysSo) {
  SmallEngine s;
  Session session(s.model, 12, greedy());
  EXPECT_THROW(session.prompt(s.model.tokenizer().encode("a prompt that is too long")), Error);
  EXPECT_THROW(session.prompt({}), Error);
  session.prompt(s.model.tokenizer().encode("12345678"));
  GenerateOptions options;
  options.ignore_end = true;
  const GenerateResult result = session.generate(options, nullptr);
  EXPECT_EQ(result.reason, StopReason::context_full);
  EXPECT_EQ(result.tokens.size(), 4u);
}

TEST(SessionTest, StopStringsAreCutOutAndCancelStops) {
  SmallEngine s;
  const auto run = [&](GenerateOptions options) {
    Session session(s.model, 256, greedy());
    session.prompt(s.model.tokenizer().encode(kPrompt));
    options.max_tokens = 60;
    options.ignore_end = true;
    return session.generate(options, nullptr);
  };
  const std::string text = run({}).text;
  ASSERT_GT(text.size(), 20u);
  GenerateOptions options;
  options.stop = {text.substr(10, 5)};
  const GenerateResult stopped = run(options);
  EXPECT_EQ(stopped.reason, StopReason::stop_string);
  EXPECT_EQ(stopped.text, text.substr(0, text.find(options.stop[0])));
  const std::atomic<bool> cancel{true};
  GenerateOptions cancelled;
  cancelled.cancel = &cancel;
  EXPECT_EQ(run(cancelled).reason, StopReason::cancelled);
}

TEST(SessionTest, ABudgetThatIsTooSmallIsAnError) {
  EXPECT_THROW(SmallEngine(1, 64, 100 * kKiB), OutOfBudget);
}

TEST(SessionTest, BadTokensAreRefused) {
  SmallEngine s;
  const auto sequence = s.model.new_sequence(8);
  std::vector<float> logits(s.model.config().vocab_size);
  for (const TokenId bad : {-1, 272, 1 << 30}) {
    const Row row{bad, sequence.get(), true};
    EXPECT_THROW(s.model.forward(std::span(&row, 1), logits), Error);
  }
  EXPECT_EQ(sequence->length(), 0u);
}

TEST(SamplerTest, SeedsReproduceAndFiltersHold) {
  const std::vector<float> logits{1, 5, 4.9f, -2, 3, 0};
  SamplerOptions options;
  options.temperature = 1;
  options.seed = 7;
  Sampler a(options), b(options);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(a.sample(logits, {}), b.sample(logits, {}));
  options.top_k = 2;
  Sampler two(options);
  for (int i = 0; i < 50; ++i) {
    const TokenId id = two.sample(logits, {});
    EXPECT_TRUE(id == 1 || id == 2);
  }
  options.min_p = 0.95f;
  Sampler one(options);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(one.sample(logits, {}), 1);
}

TEST(SamplerTest, PenaltiesAndDry) {
  const std::vector<float> logits{0, 5, 4.9f};
  SamplerOptions options = greedy();
  options.repetition_penalty = 1.5f;
  EXPECT_EQ(Sampler(options).sample(logits, std::vector<TokenId>{1}), 2);
  options = greedy();
  options.dry_multiplier = 10;
  // "0 2 1 0 2": 1 would prolong a repeat of two tokens.
  EXPECT_EQ(Sampler(options).sample(logits, std::vector<TokenId>{0, 2, 1, 0, 2}), 2);
  EXPECT_EQ(Sampler(options).sample(logits, std::vector<TokenId>{0, 2, 1}), 1);
}

TEST(LookupTest, DraftsWhatFollowedTheLatestOccurrence) {
  EXPECT_EQ(draft_by_lookup(std::vector<TokenId>{1, 2, 3, 9, 8, 1, 2, 3}, 2), (std::vector<TokenId>{9, 8}));
  EXPECT_TRUE(draft_by_lookup(std::vector<TokenId>{1, 2, 3, 4}, 4).empty());
}

}  // namespace
}  // namespace snug
