// Sequences leave memory and come back: what follows is the same to the bit, whatever kept their pages.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/error.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct SwapEngine : TinyEngine {
  explicit SwapEngine(std::string_view kv, KvSwapOptions swap = {.space = kGiB},
                      const TinyShape& shape = {.context = 2048})
      : TinyEngine(shape, {.max_rows = 200, .context = 2048, .kv_swap = swap}, 2, kv) {}

  std::unique_ptr<Sequence> read(const std::vector<TokenId>& tokens) {
    auto sequence = model.new_sequence(2048);
    model.feed(*sequence, tokens, {});
    return sequence;
  }
  /// Logits after some more tokens, one by one.
  std::vector<float> after(Sequence& sequence, int count = 70) {
    std::vector<float> logits(TinyShape{}.vocab);
    for (int i = 0; i < count; ++i) {
      const Row row{i * 31 % 200, &sequence, true};
      model.forward(std::span(&row, 1), logits);
    }
    return logits;
  }
  void out(Sequence& sequence) {
    sequence.swap_out();
    settle();
  }
  void in(Sequence& sequence) {
    const auto transfer = sequence.swap_in();
    settle();
    ASSERT_TRUE(transfer->done());
    EXPECT_EQ(transfer->error(), "");
  }
  void settle() {
    while (model.swap()->wait()) model.swap()->collect();
  }
  Bytes kv_used() const { return ledger.report().by_tag[static_cast<std::size_t>(Tag::kv)]; }
};

TEST(SwapTest, WhatComesBackIsWhatHadLeft) {
  for (const std::string& name : kv_names()) {
    SCOPED_TRACE(name);
    for (const TinyShape& shape : {TinyShape{.context = 2048}, TinyShape{.context = 2048, .gemma = 3},
                                   TinyShape{.context = 2048, .hybrid = true}}) {
      const auto run = [&](bool swap) {
        SwapEngine engine(name, {.space = kGiB, .group = 4096}, shape);
        const auto sequence = engine.read(some_tokens(1100));
        std::vector<std::vector<float>> results;
        for (int round = 0; round < 3; ++round) {
          if (swap) {
            engine.out(*sequence);
            EXPECT_TRUE(sequence->swapped());
            engine.in(*sequence);
          }
          results.push_back(engine.after(*sequence));
        }
        return results;
      };
      EXPECT_EQ(run(true), run(false));
    }
  }
}

TEST(SwapTest, MemoryGoesBackAndLittleIsWrittenTwice) {
  SwapEngine engine("", {.space = kGiB});
  const Bytes before = engine.kv_used();
  const auto sequence = engine.read(some_tokens(1500));
  engine.out(*sequence);
  EXPECT_EQ(engine.kv_used(), before);
  EXPECT_EQ(sequence->memory_bytes(), 0u);
  const Bytes written = engine.model.swap()->stats().written;
  EXPECT_GE(engine.model.swap()->used_bytes(), written);
  engine.in(*sequence);
  engine.after(*sequence, 30);
  engine.out(*sequence);
  // The page that was written to, and no other.
  EXPECT_LE(engine.model.swap()->stats().written - written, written / 20);
}

TEST(SwapTest, ForksShareWhatLeavesAndWhatComesBack) {
  SwapEngine engine(""), plain("");
  const auto first = engine.read(some_tokens(1000)), expected = plain.read(some_tokens(1000));
  const auto second = first->fork();
  engine.out(*first);
  const Bytes written = engine.model.swap()->stats().written, used = engine.kv_used();
  const auto third = first->fork();
  engine.out(*second);
  EXPECT_EQ(second->memory_bytes(), 0u);
  EXPECT_EQ(engine.model.swap()->stats().written, written);
  EXPECT_LT(engine.kv_used(), used);
  engine.in(*third);
  const Bytes once = engine.kv_used(), read = engine.model.swap()->stats().read;
  engine.in(*first);
  EXPECT_EQ(engine.kv_used(), once);
  EXPECT_EQ(engine.model.swap()->stats().read, read);
  const auto other = expected->fork();
  EXPECT_EQ(engine.after(*first, 40), plain.after(*expected, 40));
  EXPECT_EQ(engine.after(*third, 70), plain.after(*other, 70));
}

TEST(SwapTest, ABeginningThatOthersKeepLeavesToo) {
  for (const std::string& name : kv_names()) {
    SCOPED_TRACE(name);
    const auto run = [&](bool swap) {
      SwapEngine engine(name);
      const auto sequence = engine.read(some_tokens(200)), other = sequence->fork();
      std::vector<std::vector<float>> results;
      for (int round = 0; round < 5; ++round) {
        results.push_back(engine.after(*sequence, 30));
        if (!swap) continue;
        engine.out(*sequence);
        if (round == 1) engine.out(*other);
        engine.in(*sequence);
      }
      return results;
    };
    EXPECT_EQ(run(true), run(false));
  }
}

TEST(SwapTest, AShorterBeginningComesBackWithoutTheRest) {
  for (const std::string_view kv : {"bf16", "kivi-4"}) {
    SwapEngine engine(kv), plain(kv);
    const auto sequence = engine.read(some_tokens(1000)), expected = plain.read(some_tokens(1000));
    engine.out(*sequence);
    const auto fork = sequence->fork();
    ASSERT_EQ(fork->truncate(960), expected->truncate(960));
    ASSERT_GT(fork->length(), 0u);
    engine.in(*fork);
    EXPECT_EQ(engine.after(*fork), plain.after(*expected));
  }
}

TEST(SwapTest, WithoutRoomItStaysOnTheDisk) {
  SwapEngine engine("", {.space = kGiB}, {.layers = 12, .context = 2048}),
      plain("", {}, {.layers = 12, .context = 2048});
  const auto sequence = engine.read(some_tokens(1500));
  engine.out(*sequence);
  engine.ledger.set_limit(engine.ledger.report().used + 2 * kMiB);
  EXPECT_THROW(sequence->swap_in(), OutOfBudget);
  EXPECT_TRUE(sequence->swapped());
  engine.ledger.set_limit(Ledger::kUnlimited);
  engine.in(*sequence);
  const auto expected = plain.read(some_tokens(1500));
  EXPECT_EQ(engine.after(*sequence, 5), plain.after(*expected, 5));
}

TEST(SwapTest, ItMayComeBackBeforeItHasLeft) {
  SwapEngine engine(""), plain("");
  const auto sequence = engine.read(some_tokens(1000)), expected = plain.read(some_tokens(1000));
  sequence->swap_out();
  const auto transfer = sequence->swap_in();
  EXPECT_EQ(engine.after(*sequence), plain.after(*expected));  // with what is written meanwhile
  engine.settle();
  engine.out(*sequence);
  engine.in(*sequence);
  EXPECT_EQ(engine.after(*sequence), plain.after(*expected));
}

TEST(SwapTest, WithoutADiskPagesStayWhereTheyAre) {
  // Nothing can be written there, for root neither.
  const KvSwapOptions full{.space = kGiB};
  SwapEngine engine("", full), plain("");
  const auto sequence = engine.read(some_tokens(1000)), expected = plain.read(some_tokens(1000));
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit none{0, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &none);
  const Bytes used = engine.kv_used();
  engine.out(*sequence);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(engine.model.swap()->last_error(), "");
  EXPECT_EQ(engine.kv_used(), used);
  engine.in(*sequence);
  EXPECT_EQ(engine.after(*sequence), plain.after(*expected));
  const auto other = sequence->fork();
  engine.out(*sequence);
  engine.out(*other);
  EXPECT_LT(engine.kv_used(), used);
}

}  // namespace
}  // namespace snug
