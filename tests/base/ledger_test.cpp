#include "base/ledger.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace snug {
namespace {

constexpr Bytes kPage = 4096;

TEST(LedgerTest, ChargesWholePagesAndReleases) {
  Ledger ledger(10 * kPage);
  {
    const Reservation a = ledger.reserve(Tag::kv, 1);
    EXPECT_EQ(ledger.report().used, kPage);
    EXPECT_EQ(ledger.report().by_tag[static_cast<std::size_t>(Tag::kv)], kPage);
    const Reservation b = ledger.reserve(Tag::weights, 9 * kPage);
    EXPECT_THROW(ledger.reserve(Tag::scratch, 1), OutOfBudget);
  }
  EXPECT_EQ(ledger.report().used, 0u);
  EXPECT_EQ(ledger.report().peak, 10 * kPage);
}

TEST(LedgerTest, ResizeKeepsTheOldSizeWhenItCannotGrow) {
  Ledger ledger(4 * kPage);
  Reservation a = ledger.reserve(Tag::kv, kPage);
  a.resize(3 * kPage);
  EXPECT_THROW(a.resize(5 * kPage), OutOfBudget);
  EXPECT_EQ(a.bytes(), 3 * kPage);
  EXPECT_EQ(ledger.report().used, 3 * kPage);
  a.resize(kPage);
  EXPECT_EQ(ledger.report().used, kPage);
}

TEST(LedgerTest, HoldersGiveBackLeastRegretFirst) {
  Ledger ledger(4 * kPage);
  Reservation cheap = ledger.reserve(Tag::page_cache, 2 * kPage), dear = ledger.reserve(Tag::page_cache, 2 * kPage);
  std::vector<std::string> asked;
  const auto dear_holder = ledger.add_holder({[] { return 2.0; },
                                              [&](Bytes) {
                                                asked.push_back("dear");
                                                const Bytes had = dear.bytes();
                                                dear.release();
                                                return had;
                                              }});
  const auto cheap_holder = ledger.add_holder({[] { return 1.0; },
                                               [&](Bytes) {
                                                 asked.push_back("cheap");
                                                 const Bytes had = cheap.bytes();
                                                 cheap.release();
                                                 return had;
                                               }});
  const Reservation wanted = ledger.reserve(Tag::kv, 2 * kPage);
  EXPECT_EQ(asked, std::vector<std::string>{"cheap"});
  EXPECT_EQ(dear.bytes(), 2 * kPage);
}

TEST(LedgerTest, ManyThreadsBalance) {
  Ledger ledger(1000 * kPage);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        Reservation r = ledger.reserve(Tag::scratch, kPage * static_cast<Bytes>(1 + i % 3));
        r.resize(kPage * 4);
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ledger.report().used, 0u);
  EXPECT_LE(ledger.report().peak, 1000 * kPage);
}

TEST(LedgerTest, TheErrorSaysHowMuchIsMissing) {
  Ledger ledger(kMiB);
  try {
    ledger.reserve(Tag::weights, 2 * kMiB);
    FAIL();
  } catch (const OutOfBudget& e) {
    EXPECT_EQ(e.asked, 2 * kMiB);
    EXPECT_NE(std::string(e.what()).find("2MiB"), std::string::npos);
  }
}

}  // namespace
}  // namespace snug
