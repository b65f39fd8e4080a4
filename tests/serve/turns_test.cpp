// One at a time works, as long as it may, and nobody is forgotten.

#include "serve/turns.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace snug {
namespace {

/// Something that waits for its turn on a thread of its own.
class Other {
public:
  Other(Turns& turns, std::size_t who, bool computes)
      : thread_([this, &turns, who, computes] {
          turns.begin(who, computes);
          begun = true;
          while (!may_end) std::this_thread::yield();
          turns.end(false);
        }) {}
  ~Other() {
    may_end = true;
    thread_.join();
  }
  void wait() const {
    while (!begun) std::this_thread::yield();
  }
  std::atomic<bool> begun{false}, may_end{false};

private:
  std::thread thread_;
};

void until_it_waits(const Turns& turns, std::size_t who) {
  while (!turns.wants(who)) std::this_thread::yield();
}

TEST(TurnsTest, OneWithMoreToDoGoesOnUntilItsTurnIsOver) {
  Turns turns;
  turns.set_length(std::chrono::hours(1));
  turns.begin(0, true);
  Other other(turns, 1, true);
  until_it_waits(turns, 1);
  for (int step = 0; step < 10; ++step) {
    turns.end(true);
    turns.begin(0, true);
    EXPECT_FALSE(other.begun);
  }
  turns.set_length({});
  turns.end(true);
  other.wait();
  other.may_end = true;
  turns.begin(0, true);
  turns.end(false);
}

TEST(TurnsTest, OneWithoutMoreToDoMakesWay) {
  Turns turns;
  turns.set_length(std::chrono::hours(1));
  turns.begin(0, true);
  EXPECT_TRUE(turns.wants(0));
  Other other(turns, 1, true);
  until_it_waits(turns, 1);
  turns.end(false);
  other.wait();
  EXPECT_FALSE(turns.wants(0));
}

TEST(TurnsTest, AVisitorComesBetweenTwoStepsAndEndsNoTurn) {
  Turns turns;
  turns.set_length(std::chrono::hours(1));
  turns.begin(0, true);
  Other waiting(turns, 1, true);
  until_it_waits(turns, 1);
  turns.end(true);
  {
    Other visitor(turns, 2, false);
    visitor.wait();
    EXPECT_FALSE(turns.wants(2));
  }
  turns.begin(0, true);
  EXPECT_FALSE(waiting.begun);
  turns.end(false);
  waiting.wait();
}

TEST(TurnsTest, NeverTwoAtATimeAndAllGetThere) {
  Turns turns;
  std::atomic<int> at_work{0};
  std::vector<std::thread> threads;
  int steps = 0;  // of whoever has the turn
  for (std::size_t who = 0; who < 4; ++who)
    threads.emplace_back([&, who] {
      for (int i = 0; i < 200; ++i) {
        turns.begin(who, who != 3);
        EXPECT_EQ(++at_work, 1);
        ++steps;
        --at_work;
        turns.end(i + 1 < 200);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(steps, 800);
}

}  // namespace
}  // namespace snug
