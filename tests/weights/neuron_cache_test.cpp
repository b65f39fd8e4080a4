// What the cache hands out are the right bundles, whatever its capacity; the longest unused leave first.

#include "weights/neuron_cache.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "base/error.hpp"
#include "support/ffn_files.hpp"
#include "support/gguf_writer.hpp"

namespace snug {
namespace {

using namespace testing_support;

std::size_t tenth(std::size_t n, float) {
  return n / 10;
}

struct NeuronCacheTest : testing::Test {
  TemporaryFolder folder;
  std::string path = write_test_ffn(folder);
  FfnFile file = FfnFile::parse(open_file(path, Caching::direct), kTestModel);
  Ledger ledger{Ledger::kUnlimited};

  NeuronCache make(Bytes capacity) { return NeuronCache(ledger, file, 0, tenth, capacity); }
  void expect_right(NeuronCache& cache, std::size_t layer, const std::vector<std::uint32_t>& neurons) {
    const auto bundles = cache.fetch(layer, neurons);
    ASSERT_EQ(bundles.size(), neurons.size());
    for (std::size_t n = 0; n < neurons.size(); ++n)
      for (std::size_t i = 0; i < file.shape().bundle_bytes(); ++i)
        ASSERT_EQ(bundles[n][i], test_bundle_byte(layer, neurons[n], i)) << neurons[n] << " " << i;
  }
};

TEST_F(NeuronCacheTest, TheRightBundlesAtAnyCapacity) {
  for (const Bytes capacity : {Bytes{0}, NeuronCache::most_bytes(file) - 10000, NeuronCache::most_bytes(file)}) {
    NeuronCache cache = make(capacity);
    EXPECT_NEAR(static_cast<double>(ledger.report().used), static_cast<double>(cache.memory_bytes()),
                3 * 4096);  // pages
    EXPECT_LE(cache.memory_bytes(), std::max(capacity, NeuronCache::least_bytes(file, 0, tenth)) + 4096);
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
      const std::size_t layer = i % 2 * 2;
      std::set<std::uint32_t> wanted;
      while (wanted.size() < file.shape().neurons[layer] / 10)
        wanted.insert(static_cast<std::uint32_t>(random() % file.shape().neurons[layer]));
      expect_right(cache, layer, {wanted.begin(), wanted.end()});
    }
  }
}

TEST_F(NeuronCacheTest, TheLongestUnusedLeaveFirst) {
  NeuronCache cache = make(0);  // room for 20 neurons of layer 2
  expect_right(cache, 2, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  expect_right(cache, 2, {10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
  expect_right(cache, 2, {0, 1, 2, 3, 4});
  EXPECT_EQ(cache.stats().hits, 5u);
  expect_right(cache, 2, {20, 21, 22, 23, 24, 25, 26, 27, 28, 29});  // instead of 5 to 14
  expect_right(cache, 2, {0, 1, 2, 3, 4, 15, 16, 17, 18, 19});
  EXPECT_EQ(cache.stats().hits, 15u);
  expect_right(cache, 2, {5, 14});
  EXPECT_EQ(cache.stats().hits, 15u);
}

TEST_F(NeuronCacheTest, NeighboursAreReadAtOnce) {
  NeuronCache cache = make(0);
  expect_right(cache, 0, {3, 4, 5, 9, 20});
  EXPECT_EQ(cache.stats().reads, 1u);
  expect_right(cache, 0, {100, 299});
  EXPECT_EQ(cache.stats().reads, 3u);
}

TEST_F(NeuronCacheTest, AnErrorLeavesNothingBehind) {
  const std::string bytes = read_text_file(path);
  FfnFile broken = FfnFile::parse(
      std::make_unique<MemoryFile>(bytes, file.bundles(2, 0, 1).offset + 100 * file.shape().bundle_bytes()),
      kTestModel);
  NeuronCache cache(ledger, broken, 0, tenth, 0);
  const std::uint32_t wanted[] = {1, 2, 199};
  EXPECT_THROW(cache.fetch(2, wanted), IoError);
  EXPECT_THROW(cache.fetch(2, wanted), IoError);
  EXPECT_EQ(cache.stats().hits, 0u);
  const auto found = cache.fetch(2, std::span(wanted, 2));
  EXPECT_EQ(found[1][0], test_bundle_byte(2, 2, 0));
}

}  // namespace
}  // namespace snug
