// A routing profile is what the simulations say, survives the disk, and belongs to one model.

#include "plan/routing_profile.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

/// 2 layers of 16 experts, 2 used, low numbers more often.
RoutingTrace skewed_trace() {
  RoutingTrace trace{16, 2, {{}, {}}};
  std::mt19937 random(1);
  std::geometric_distribution<unsigned> draw(0.3);
  for (auto& chosen : trace.chosen)
    for (int token = 0; token < 200; ++token) {
      const unsigned first = draw(random) % 16;
      chosen.push_back(static_cast<std::uint16_t>(first));
      chosen.push_back(static_cast<std::uint16_t>((first + 1 + draw(random) % 15) % 16));
    }
  return trace;
}

TEST(RoutingProfileTest, GrowsWithTheCache) {
  const RoutingProfile profile = make_routing_profile(skewed_trace(), 16);
  ASSERT_GE(profile.points.size(), 4u);
  EXPECT_EQ(profile.at(0).online, 0);
  EXPECT_EQ(profile.at(1).online, 1);
  for (double share = 0.1; share < 1; share += 0.05) {
    EXPECT_LE(profile.at(share).online, profile.at(share + 0.05).online + 0.02) << share;
    EXPECT_GT(profile.at(share).online, share);  // skewed: better than even
  }
  const double share = profile.share_for(0.9);
  EXPECT_NEAR(profile.at(share).online, 0.9, 1e-9);
}

TEST(RoutingProfileTest, IsSavedBesideItsModel) {
  const TemporaryFolder folder;
  const GgufFile file = GgufFile::open(folder.write("tiny.gguf", tiny_model({.experts = 4, .used = 2})));
  EXPECT_FALSE(load_routing_profile(file));
  const RoutingProfile profile = make_routing_profile(skewed_trace(), 16);
  const std::string path = save_routing_profile(file, profile);
  const auto loaded = load_routing_profile(file);
  ASSERT_TRUE(loaded);
  ASSERT_EQ(loaded->points.size(), profile.points.size());
  EXPECT_EQ(loaded->at(0.33).online, profile.at(0.33).online);

  for (const std::string bad : {"", "{", "[]", "{\"model\":1,\"points\":[]}", "{\"model\":\"x\",\"points\":7}"}) {
    write_atomically(path, [&](const auto& append) { append(std::as_bytes(std::span(bad))); });
    EXPECT_THROW(load_routing_profile(file), FormatError) << bad;
  }
}

}  // namespace
}  // namespace snug
