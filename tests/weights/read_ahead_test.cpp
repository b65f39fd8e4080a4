// Reading ahead never changes what is read, whatever the order in which ranges are asked for.

#include "weights/read_ahead.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <random>

#include "base/error.hpp"
#include "support/gguf_writer.hpp"

namespace snug {
namespace {

std::string some_bytes(std::size_t n) {
  std::mt19937 random(1);
  std::string bytes(n, '\0');
  for (char& b : bytes) b = static_cast<char>(random());
  return bytes;
}

struct ReadAheadTest : testing::Test {
  static constexpr std::size_t kSize = 5000, kCount = 40;
  const std::string bytes = some_bytes(kSize * kCount);
  testing_support::MemoryFile file{bytes};
  Ledger ledger{Ledger::kUnlimited};

  ReadAhead::Range range(std::size_t i) const { return {&file, i * kSize, kSize}; }
  ReadAhead::Lease get(ReadAhead& ahead, const ReadAhead::Range& range) {
    return ahead.get(range, range.offset, range.size);
  }
  bool right(const ReadAhead::Lease& lease, std::size_t i) const {
    return std::memcmp(lease.data, bytes.data() + i * kSize, kSize) == 0;
  }
};

TEST_F(ReadAheadTest, TheSameOrderAgainAndAgain) {
  ReadAhead ahead(ledger, 8, kSize);
  for (int pass = 0; pass < 20; ++pass)
    for (std::size_t i = 0; i < kCount; ++i) ASSERT_TRUE(right(get(ahead, range(i)), i)) << pass << " " << i;
}

TEST_F(ReadAheadTest, AnExpectedOrderIsReadAheadFromTheFirstPassOn) {
  ReadAhead ahead(ledger, 8, kSize);
  std::vector<ReadAhead::Range> order;
  for (std::size_t i = 0; i < kCount; ++i) order.push_back(range(i));
  ahead.expect(order);
  ASSERT_TRUE(right(get(ahead, range(0)), 0));
  for (int i = 0; i < 5000 && ahead.stats().reads < 4; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_GE(ahead.stats().reads, 4u);
  EXPECT_EQ(ahead.stats().late, 1u);
  for (std::size_t i = 1; i < kCount; ++i) ASSERT_TRUE(right(get(ahead, range(i)), i)) << i;
  // And when it is another one, that is what comes.
  for (int pass = 0; pass < 3; ++pass)
    for (std::size_t i = kCount; i-- > 0;) ASSERT_TRUE(right(get(ahead, range(i)), i)) << pass << " " << i;
}

TEST_F(ReadAheadTest, AnyOrder) {
  ReadAhead ahead(ledger, 6, kSize);
  std::mt19937 random(2);
  for (int i = 0; i < 3000; ++i) {
    const std::size_t at = random() % kCount;
    ASSERT_TRUE(right(get(ahead, range(at)), at)) << i;
  }
}

TEST_F(ReadAheadTest, SeveralWorkersEachWithItsStretch) {
  ReadAhead ahead(ledger, 8, kSize);
  std::atomic<int> wrong{0};
  for (int pass = 0; pass < 20; ++pass) {
    std::vector<std::thread> workers;
    for (std::size_t w = 0; w < 3; ++w)
      workers.emplace_back([&, w] {
        // Stretches overlap by a few ranges: two workers may want the same one at once.
        for (std::size_t i = w * 12; i < w * 12 + 16; ++i) wrong += !right(get(ahead, range(i)), i);
      });
    for (auto& worker : workers) worker.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(ReadAheadTest, PartsOfExtentsAskedForByTurns) {
  // Two workers go through two halves of every extent, each at its own pace.
  ReadAhead ahead(ledger, 6, 2 * kSize);
  std::atomic<int> wrong{0};
  for (int pass = 0; pass < 20; ++pass) {
    std::vector<std::thread> workers;
    for (std::size_t w = 0; w < 2; ++w)
      workers.emplace_back([&, w] {
        for (std::size_t i = w; i < kCount; i += 2)
          wrong += !right(ahead.get({&file, i / 2 * 2 * kSize, 2 * kSize}, i * kSize, kSize), i);
      });
    for (auto& worker : workers) worker.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(ReadAheadTest, WhatIsLeftHalfWayMakesRoom) {
  ReadAhead ahead(ledger, 4, 2 * kSize);
  for (int pass = 0; pass < 3; ++pass)
    for (std::size_t i = 0; i < kCount; i += 2)
      ASSERT_TRUE(right(ahead.get({&file, i * kSize, 2 * kSize}, i * kSize, kSize), i)) << pass << " " << i;
}

TEST_F(ReadAheadTest, ErrorsReachWhoeverAsked) {
  const testing_support::MemoryFile broken(bytes, 20 * kSize);
  ReadAhead ahead(ledger, 8, kSize);
  for (int pass = 0; pass < 5; ++pass)
    for (std::size_t i = 0; i < kCount; ++i) {
      const ReadAhead::Range wanted{&broken, i * kSize, kSize};
      if (i == 19 || i == 20) continue;  // a range is read with what lies around it
      if (i < 19) {
        EXPECT_TRUE(right(get(ahead, wanted), i));
      } else {
        EXPECT_THROW(get(ahead, wanted), IoError);
      }
    }
}

}  // namespace
}  // namespace snug
