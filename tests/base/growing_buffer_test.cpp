// Memory that grows and shrinks is charged for what it has, keeps what is in it, and can be handed over.

#include "base/growing_buffer.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace snug {
namespace {

bool holds(const GrowingBuffer& buffer, std::size_t from, std::size_t to, std::byte value) {
  return std::all_of(buffer.data() + from, buffer.data() + to, [value](std::byte b) { return b == value; });
}

TEST(GrowingBufferTest, KeepsItsPlaceAndWhatIsInIt) {
  Ledger ledger(8 * kMiB);
  {
    GrowingBuffer buffer(ledger, Tag::weights, 32 * kMiB);
    EXPECT_EQ(ledger.report().used, 0u);
    buffer.resize(5000);
    EXPECT_EQ(ledger.report().used, 8192u);
    const std::byte* const place = buffer.data();
    std::fill_n(buffer.data(), 5000, std::byte{1});
    buffer.resize(5 * kMiB);
    std::fill_n(buffer.data() + 5000, 5 * kMiB - 5000, std::byte{2});
    EXPECT_EQ(ledger.report().used, 5 * kMiB);
    EXPECT_THROW(buffer.resize(9 * kMiB), OutOfBudget);
    EXPECT_EQ(buffer.size(), 5 * kMiB);
    buffer.resize(3 * kMiB);
    EXPECT_EQ(ledger.report().used, 3 * kMiB);
    buffer.resize(7 * kMiB);
    std::fill_n(buffer.data() + 3 * kMiB, 4 * kMiB, std::byte{3});
    EXPECT_EQ(buffer.data(), place);
    EXPECT_TRUE(holds(buffer, 0, 5000, std::byte{1}));
    EXPECT_TRUE(holds(buffer, 5000, 3 * kMiB, std::byte{2}));
    const GrowingBuffer moved = std::move(buffer);
    EXPECT_EQ(moved.data(), place);
  }
  EXPECT_EQ(ledger.report().used, 0u);
}

TEST(GrowingBufferTest, HugePagesGoFromOneToAnother) {
  Ledger ledger;
  PageStock stock(64 * kMiB);
  GrowingBuffer a(ledger, Tag::weights, 16 * kMiB, &stock), b(ledger, Tag::weights, 16 * kMiB, &stock);
  a.resize(8 * kMiB);
  EXPECT_EQ(ledger.report().used, 8 * kMiB);
  a.resize(5 * kMiB);
  EXPECT_EQ(ledger.report().used, 6 * kMiB) << "huge pages come and go as a whole";
  EXPECT_EQ(stock.pages(), 0u) << "a closed stock takes nothing";
  a.resize(8 * kMiB);
  std::fill_n(a.data(), 8 * kMiB, std::byte{7});
  stock.open();
  a.resize(kMiB);  // pages [2, 4), [4, 6) and [6, 8) go
  if (stock.pages() == 0) GTEST_SKIP() << "this kernel cannot move pages";
  EXPECT_EQ(stock.pages(), 3u);
  b.resize(4 * kMiB);
  EXPECT_EQ(stock.pages(), 1u);
  EXPECT_TRUE(holds(b, 0, 4 * kMiB, std::byte{7})) << "they were moved, not made anew";
  std::fill_n(b.data(), 4 * kMiB, std::byte{8});
  stock.close();
  EXPECT_EQ(stock.pages(), 0u);
  a.resize(9 * kMiB);
  std::fill_n(a.data() + kMiB, 8 * kMiB, std::byte{9});
  EXPECT_TRUE(holds(a, 0, kMiB, std::byte{7}));
  EXPECT_TRUE(holds(b, 0, 4 * kMiB, std::byte{8}));
  EXPECT_EQ(ledger.report().used, 14 * kMiB);
}

TEST(GrowingBufferTest, WithAStockItNeedsRoomForWholeHugePages) {
  Ledger ledger(5 * kMiB);
  PageStock stock(4 * kMiB);
  GrowingBuffer a(ledger, Tag::weights, 9 * kMiB, &stock);
  a.resize(3 * kMiB);
  EXPECT_EQ(a.charged(), 4 * kMiB);
  std::fill_n(a.data(), 3 * kMiB, std::byte{7});
  EXPECT_THROW(a.resize(4 * kMiB + 1), OutOfBudget);
  EXPECT_TRUE(holds(a, 0, 3 * kMiB, std::byte{7}));
  ledger.set_limit(Ledger::kUnlimited);
  a.resize(9 * kMiB);
  EXPECT_EQ(a.charged(), 10 * kMiB);
}

TEST(GrowingBufferTest, WhatIsLeftOfABufferGoesToTheStock) {
  Ledger ledger;
  PageStock stock(4 * kMiB);
  stock.open();
  {
    GrowingBuffer a(ledger, Tag::weights, 16 * kMiB, &stock);
    a.resize(10 * kMiB);
    std::fill_n(a.data(), 10 * kMiB, std::byte{7});
  }
  EXPECT_LE(stock.pages(), 2u) << "it holds no more than it has places";
  GrowingBuffer b(ledger, Tag::weights, 16 * kMiB, &stock);
  b.resize(8 * kMiB);
  std::fill_n(b.data(), 8 * kMiB, std::byte{8});
  EXPECT_TRUE(holds(b, 0, 8 * kMiB, std::byte{8}));
}

}  // namespace
}  // namespace snug
