#include "base/arena_plan.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"

namespace snug {
namespace {

using Buffers = std::vector<ArenaBuffer>;
using Strategy = ArenaPlan (*)(std::span<const ArenaBuffer>);
constexpr Strategy kStrategies[] = {plan_by_size, plan_by_breadth, plan_shared_objects, plan_arena};

/// Marks every cell of 64 bytes in every step: a cell is taken once.
void expect_valid(const Buffers& buffers, const ArenaPlan& plan) {
  ASSERT_EQ(plan.offsets.size(), buffers.size());
  std::vector<std::vector<bool>> taken;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const ArenaBuffer& b = buffers[i];
    ASSERT_EQ(plan.offsets[i] % 64, 0u);
    ASSERT_LE(plan.offsets[i] + b.size, plan.total);
    for (std::size_t step = b.first; step <= b.last; ++step) {
      if (taken.size() <= step) taken.resize(step + 1);
      for (Bytes at = plan.offsets[i] / 64; at * 64 < plan.offsets[i] + b.size; ++at) {
        if (taken[step].size() <= at) taken[step].resize(at + 1);
        ASSERT_FALSE(taken[step][at]) << "buffer " << i << " in step " << step;
        taken[step][at] = true;
      }
    }
  }
}

TEST(ArenaPlanTest, BuffersThatLiveTogetherLieApart) {
  std::mt19937 random(1);
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  for (int round = 0; round < 2000; ++round) {
    Buffers buffers(1 + below(14));
    const std::uint32_t steps = 1 + below(12), largest = 1 + below(2000);
    for (ArenaBuffer& b : buffers) {
      b.first = below(steps);
      b.last = b.first + below(std::min(4u, steps - b.first));
      b.size = below(largest);
    }
    Bytes least = ~Bytes{0};
    for (const Strategy strategy : kStrategies) {
      const ArenaPlan plan = strategy(buffers);
      expect_valid(buffers, plan);
      EXPECT_GE(plan.total, arena_lower_bound(buffers));
      if (strategy == plan_arena)
        EXPECT_EQ(plan.total, least);
      else
        least = std::min(least, plan.total);
    }
  }
}

TEST(ArenaPlanTest, EachStrategyIsTheBestSomewhere) {
  struct Case {
    Buffers buffers;
    Bytes size, breadth, objects;  ///< totals in units of 64; the least is also the bound
  };
  const Case cases[] = {
      {{{1 * 64, 1, 3}, {3 * 64, 3, 3}, {2 * 64, 2, 2}, {1 * 64, 0, 2}}, 4, 6, 5},
      {{{2 * 64, 1, 2}, {3 * 64, 0, 1}, {4 * 64, 0, 0}, {3 * 64, 2, 3}}, 9, 7, 9},
      {{{3 * 64, 0, 0}, {3 * 64, 1, 3}, {3 * 64, 0, 1}, {5 * 64, 3, 3}}, 11, 11, 8},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(plan_by_size(c.buffers).total, c.size * 64);
    EXPECT_EQ(plan_by_breadth(c.buffers).total, c.breadth * 64);
    EXPECT_EQ(plan_shared_objects(c.buffers).total, c.objects * 64);
    EXPECT_EQ(plan_arena(c.buffers).total, std::min({c.size, c.breadth, c.objects}) * 64);
    EXPECT_EQ(arena_lower_bound(c.buffers), plan_arena(c.buffers).total);
  }
}

TEST(ArenaPlanTest, NothingAndLittle) {
  for (const Strategy strategy : kStrategies) {
    EXPECT_EQ(strategy({}).total, 0u);
    const ArenaPlan one = strategy(Buffers{{100, 3, 5}});
    EXPECT_EQ(one.total, 128u);
    EXPECT_EQ(one.offsets, std::vector<Bytes>{0});
    EXPECT_EQ(strategy(Buffers{{0, 0, 9}, {64, 0, 0}, {0, 0, 0}, {64, 1, 9}}).total, 64u);
    EXPECT_EQ(strategy(Buffers{{64, 0, 1}, {64, 1, 2}}).total, 128u);  // both alive in step 1
    EXPECT_THROW(strategy(Buffers{{~Bytes{0}, 0, 0}}), Error);
    EXPECT_THROW(strategy(Buffers{{~Bytes{0} - 1000, 0, 0}, {1024, 0, 0}}), Error);
  }
  EXPECT_EQ(arena_lower_bound({}), 0u);
  EXPECT_EQ(arena_lower_bound(Buffers{{1, 0, 1}, {65, 1, 2}, {300, 3, 3}}), 320u);
}

}  // namespace
}  // namespace snug
