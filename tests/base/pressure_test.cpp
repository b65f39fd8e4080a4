// What files of the kernel tell of pressure, and what a budget does about it.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/pressure_policy.hpp"

namespace snug {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Time = PressureWatch::Time;

constexpr Time kStart{std::chrono::hours(1)};

TEST(PressureTextTest, Numbers) {
  const std::string stall = "some avg10=12.50 avg60=1.00 avg300=0.00 total=345\nfull avg10=2.00 total=67\n";
  EXPECT_EQ(number_after(stall, "avg10"), 12.5);
  EXPECT_EQ(number_after(stall, "total"), 345);
  EXPECT_EQ(number_after("total_inactive_file 5\ninactive_file 7\n", "inactive_file"), 7);
  EXPECT_EQ(number_after("low 0\nhigh 3\nmax 4", "max"), 4);
  for (const char* bad :
       {"", "max", "max ", "max x", "max -1", "max nan", "max inf", "max 1e300", "maximum 4", "themax 4"})
    EXPECT_EQ(number_after(bad, "max"), std::nullopt) << bad;
}

/// A system of files.
class PressureWatchTest : public testing::Test {
protected:
  PressureWatchTest() : root_(fs::temp_directory_path() / ("snug-pressure-" + std::to_string(::getpid()))) {
    machine_has(800'000);
  }
  ~PressureWatchTest() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  void machine_has(int available) const {
    write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: " + std::to_string(available) + " kB\n");
  }
  static std::string stall(int total) {
    return "some avg10=0.00 avg60=0.00 avg300=0.00 total=" + std::to_string(total) + "\nfull avg10=0.00 total=0\n";
  }
  std::string root() const { return root_.string(); }

  fs::path root_;
};

TEST_F(PressureWatchTest, NothingThereIsNoPressure) {
  PressureWatch nowhere("/nowhere");
  EXPECT_FALSE(nowhere.look(kStart).pressure);
  for (const char* garbage : {"", "some", "some \xff\xfe", "some avg10=much total=more", "some avg10=-5 total=-1"}) {
    for (const char* name : {"memory.pressure", "memory.events", "memory.stat", "memory.max", "memory.current"})
      write(std::string("sys/fs/cgroup/") + name, garbage);
    write("proc/self/cgroup", "0::/\n");
    PressureWatch watch(root());
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(watch.look(kStart + seconds(i)).pressure) << garbage;
  }
}

TEST_F(PressureWatchTest, StallsOfTheGroup) {
  write("proc/self/cgroup", "0::/app\n");
  write("sys/fs/cgroup/app/memory.pressure", stall(1'000'000));
  PressureWatch watch(root());
  EXPECT_FALSE(watch.look(kStart).pressure);  // what was before does not count
  write("sys/fs/cgroup/app/memory.pressure", stall(1'050'000));
  EXPECT_FALSE(watch.look(kStart + milliseconds(500)).pressure);
  write("sys/fs/cgroup/app/memory.pressure", stall(1'250'000));
  EXPECT_TRUE(watch.look(kStart + milliseconds(1000)).pressure);
  EXPECT_FALSE(watch.look(kStart + milliseconds(1500)).pressure);
  write("sys/fs/cgroup/app/memory.pressure", "some avg10=40.00\n");
  EXPECT_TRUE(watch.look(kStart + milliseconds(2000)).pressure);
}

TEST_F(PressureWatchTest, StallsOfTheMachineCountWhenItHasLittleLeft) {
  write("proc/pressure/memory", "some avg10=40.00\n");
  PressureWatch watch(root());
  EXPECT_FALSE(watch.look(kStart).pressure);
  machine_has(80'000);
  const PressureReading reading = watch.look(kStart + seconds(1));
  EXPECT_TRUE(reading.pressure);
  EXPECT_EQ(reading.room, 80'000 * kKiB);
  EXPECT_EQ(reading.limit, 1'000'000 * kKiB);
  EXPECT_EQ(reading.most, ~Bytes{0});
}

TEST_F(PressureWatchTest, AGroupOfVersion1NearItsLimit) {
  const std::string group = "sys/fs/cgroup/memory/a/memory.";
  const auto holds = [&](Bytes charged, Bytes cache, int refused) {
    write(group + "usage_in_bytes", std::to_string(charged));
    write(group + "stat", "inactive_file 1\ntotal_inactive_file " + std::to_string(cache) + "\ntotal_active_file 0\n");
    write(group + "failcnt", std::to_string(refused) + "\n");
  };
  write("proc/self/cgroup", "4:memory:/a\n");
  write(group + "limit_in_bytes", std::to_string(512 * kMiB));
  holds(400 * kMiB, 0, 5);
  PressureWatch watch(root());
  EXPECT_EQ(watch.look(kStart).room, 112 * kMiB);
  holds(512 * kMiB, 100 * kMiB, 50);  // full of page cache
  EXPECT_FALSE(watch.look(kStart + seconds(1)).pressure);
  holds(502 * kMiB, 0, 50);  // near, but nothing was refused
  EXPECT_FALSE(watch.look(kStart + seconds(2)).pressure);
  holds(502 * kMiB, 0, 51);
  EXPECT_TRUE(watch.look(kStart + seconds(3)).pressure);
  EXPECT_FALSE(watch.look(kStart + seconds(4)).pressure);
  holds(508 * kMiB, 0, 51);
  EXPECT_TRUE(watch.look(kStart + seconds(5)).pressure);
  write(group + "limit_in_bytes", std::to_string(600 * kMiB));
  const PressureReading reading = watch.look(kStart + seconds(6));
  EXPECT_FALSE(reading.pressure);
  EXPECT_EQ(reading.limit, 600 * kMiB);
  EXPECT_EQ(reading.most, 584 * kMiB);
}

TEST_F(PressureWatchTest, EventsOfVersion2) {
  const std::string group = "sys/fs/cgroup/app/memory.";
  write("proc/self/cgroup", "0::/app\n");
  write(group + "max", "max\n");
  write(group + "high", std::to_string(512 * kMiB));
  write(group + "current", std::to_string(502 * kMiB));
  write(group + "stat", "anon 0\ninactive_file 100\nactive_file 0\n");
  write(group + "events", "low 0\nhigh 1\nmax 0\n");
  PressureWatch watch(root());
  EXPECT_FALSE(watch.look(kStart).pressure);
  write(group + "events", "low 7\nhigh 1\nmax 0\n");
  EXPECT_FALSE(watch.look(kStart + seconds(1)).pressure);
  write(group + "events", "low 7\nhigh 2\nmax 0\n");
  EXPECT_TRUE(watch.look(kStart + seconds(2)).pressure);
}

constexpr PressureReading kShort{.pressure = true}, kPlenty{.room = 64 * kGiB};

TEST(PressurePolicyTest, ShrinksOnceInASecondDownToTheSmallest) {
  PressurePolicy policy;
  PressurePolicy::Budget b{.now = 800 * kMiB, .used = 800 * kMiB, .ceiling = 800 * kMiB, .smallest = 650 * kMiB};
  b.now = policy.next(kStart, kShort, b);
  EXPECT_EQ(b.now, 700 * kMiB);
  EXPECT_EQ(policy.next(kStart + milliseconds(500), kShort, b), 700 * kMiB);
  b.now = policy.next(kStart + seconds(1), kShort, b);
  EXPECT_EQ(b.now, 650 * kMiB);
  EXPECT_EQ(policy.next(kStart + seconds(2), kShort, b), 650 * kMiB);
}

TEST(PressurePolicyTest, ShrinksWhatIsUsed) {
  PressurePolicy policy;
  EXPECT_EQ(policy.next(kStart, kShort, {8 * kGiB, 800 * kMiB, 8 * kGiB, 100 * kMiB}), 700 * kMiB);
}

TEST(PressurePolicyTest, GrowsToTheCeilingAfterALongCalm) {
  PressurePolicy policy;
  PressurePolicy::Budget b{400 * kMiB, 400 * kMiB, 800 * kMiB, 0};
  b.now = policy.next(kStart, kShort, b);
  std::vector<Bytes> seen;
  for (int second = 1; second < 120; ++second) {
    const Bytes next = policy.next(kStart + seconds(second), kPlenty, b);
    if (next == b.now) continue;
    EXPECT_GE(second, 30);
    EXPECT_GT(next, b.now);
    seen.push_back(b.now = next);
  }
  EXPECT_EQ(seen.size(), 8u);
  EXPECT_EQ(b.now, 800 * kMiB);
  b.now = policy.next(kStart + seconds(200), kShort, b);
  EXPECT_EQ(policy.next(kStart + seconds(229), kPlenty, b), b.now);
}

TEST(PressurePolicyTest, GrowsOnlyIntoRoom) {
  PressurePolicy policy;
  const PressurePolicy::Budget b{400 * kMiB, 400 * kMiB, 800 * kMiB, 0};
  EXPECT_EQ(policy.next(kStart, {.room = 50 * kMiB}, b), 400 * kMiB);
  EXPECT_EQ(policy.next(kStart, {.room = 60 * kMiB}, b), 450 * kMiB);
}

TEST(PressurePolicyTest, FollowsALowerCeilingAtOnce) {
  PressurePolicy policy;
  EXPECT_EQ(policy.next(kStart, kPlenty, {800 * kMiB, 700 * kMiB, 300 * kMiB, 0}), 300 * kMiB);
  PressurePolicy beyond_limit;
  EXPECT_EQ(beyond_limit.next(kStart, {.most = 500 * kMiB}, {800 * kMiB, 700 * kMiB, 800 * kMiB, 0}), 500 * kMiB);
  PressurePolicy second;
  EXPECT_EQ(second.next(kStart, kPlenty, {800 * kMiB, 700 * kMiB, 300 * kMiB, 400 * kMiB}), 400 * kMiB);
}

}  // namespace
}  // namespace snug
