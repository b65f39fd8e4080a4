// Energy is read as Linux shows it, counted while the model works, and absent where it cannot be read.

#include "serve/energy.hpp"

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"

namespace snug {
namespace {

using testing_support::TemporaryFolder;

class EnergyTest : public ::testing::Test {
protected:
  void zone(const std::string& folder, const std::string& name, const std::string& microjoules) {
    std::filesystem::create_directory(root_.file(folder));
    root_.write(folder + "/name", name + "\n");
    root_.write(folder + "/max_energy_range_uj", "10000000\n");
    root_.write(folder + "/energy_uj", microjoules + "\n");
  }
  TemporaryFolder root_;
};

TEST_F(EnergyTest, PackagesAreAddedUpAndCountersBeginAnew) {
  zone("intel-rapl:0", "package-0", "1000000");
  zone("intel-rapl:1", "package-1", "9000000");
  zone("intel-rapl:0:0", "core", "0");
  zone("intel-rapl:2", "psys", "0");
  zone("intel-rapl-mmio:0", "package-0", "0");
  EnergyMeter meter(root_.file(""));
  ASSERT_TRUE(meter.known());
  EXPECT_EQ(meter.joules(), 0.0);
  for (const char* other : {"intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"})
    root_.write(std::string(other) + "/energy_uj", "5000000");
  root_.write("intel-rapl:0/energy_uj", "3500000");
  root_.write("intel-rapl:1/energy_uj", "500000");  // past the end of its range
  EXPECT_DOUBLE_EQ(*meter.joules(), 2.5 + 1.5);
  std::filesystem::remove(root_.file("intel-rapl:1/energy_uj"));
  EXPECT_FALSE(meter.joules());
}

TEST_F(EnergyTest, WithoutReadableCountersNothingIsKnown) {
  EXPECT_FALSE(EnergyMeter(root_.file("nowhere")).known());
  EXPECT_FALSE(EnergyMeter(root_.file("")).known());
  zone("intel-rapl:0", "package-0", "none");
  EXPECT_FALSE(EnergyMeter(root_.file("")).known());
}

TEST_F(EnergyTest, OnlyTheTimeOfWorkCounts) {
  zone("intel-rapl:0", "package-0", "0");
  EnergyLoad load{5, 100};
  const auto start = EnergyAccount::Clock::now();
  EnergyAccount account(EnergyMeter(root_.file("")), [&load] { return load; }, std::chrono::milliseconds(0));
  account.sample(start + std::chrono::seconds(1000));
  EXPECT_EQ(account.report().joules, 0);
  root_.write("intel-rapl:0/energy_uj", "8000000");
  load = {5 + 500, 100 + 4};
  account.sample(start + std::chrono::seconds(2000));
  EXPECT_NEAR(account.report().joules, 4, 1e-6);  // half of the time
  EXPECT_EQ(account.report().tokens, 4u);
  EXPECT_NEAR(account.report().joules_per_token(), 1, 1e-6);
}

TEST_F(EnergyTest, ItSamplesByItself) {
  zone("intel-rapl:0", "package-0", "0");
  std::atomic<int> asked{0};
  {
    EnergyAccount account(
        EnergyMeter(root_.file("")), [&asked] { return EnergyLoad{static_cast<double>(++asked), 0}; },
        std::chrono::milliseconds(1));
    for (int i = 0; i < 5000 && asked < 5; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(asked, 5);
}

}  // namespace
}  // namespace snug
