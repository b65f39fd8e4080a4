// Codes of coupled channels stand for their centroids in tiles, and the nearest ones are found, on every instruction
// set.

#include "kernels/kv_centroids.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

constexpr std::size_t kTokens = 64;

struct Case {
  KvCentroids layout;
  std::vector<bf16_t> centroids;
  std::vector<std::byte> codes;
  explicit Case(std::size_t dim, std::size_t width)
      : layout{dim / width, width}, centroids(dim * kCentroids), codes(layout.page_bytes()) {
    std::mt19937 random(1);
    for (bf16_t& c : centroids) c = static_cast<bf16_t>(random());
    for (std::byte& c : codes) c = static_cast<std::byte>(random());
  }
  bf16_t at(std::size_t token, std::size_t d) const {
    const std::size_t group = d / layout.width, code = static_cast<std::size_t>(codes[group * kTokens + token]);
    return centroids[(group * kCentroids + code) * layout.width + d % layout.width];
  }
};

TEST(KvCentroidsTest, TilesAreMadeOfCentroids) {
  for (const KernelTable* k : available_kernels())
    for (const std::size_t width : {4u, 8u})
      for (const std::size_t dim : {16u, 64u, 80u, 256u}) {
        const Case c(dim, width);
        std::vector<bf16_t> keys(kTokens * dim), values(kTokens * dim);
        k->keys_of_centroids(c.codes.data(), c.centroids.data(), c.layout, keys.data());
        k->values_of_centroids(c.codes.data(), c.centroids.data(), c.layout, values.data());
        for (std::size_t t = 0; t < kTokens; ++t)
          for (std::size_t d = 0; d < dim; ++d) {
            const std::size_t tile = t / kTileTokens * kv_tile_values(dim);
            ASSERT_EQ(keys[tile + key_index(t % kTileTokens, d)], c.at(t, d)) << k->name << " " << t << " " << d;
            ASSERT_EQ(values[tile + value_index(t % kTileTokens, d, dim)], c.at(t, d)) << k->name;
          }
      }
}

TEST(KvCentroidsTest, TheNearestAreFound) {
  for (const KernelTable* k : available_kernels())
    for (const std::size_t width : {4u, 8u}) {
      const std::vector<float> lines = testing_support::random_values(width * kTokens, 1),
                               centroids = testing_support::random_values(width * kCentroids, 2);
      std::vector<float> bias(kCentroids);
      for (std::size_t i = 0; i < centroids.size(); ++i) bias[i / width] -= 0.5f * centroids[i] * centroids[i];
      std::byte codes[kTokens];
      k->nearest_centroids(lines.data(), centroids.data(), bias.data(), width, codes);
      for (std::size_t t = 0; t < kTokens; ++t) {
        const auto distance = [&](std::size_t c) {
          float sum = 0;
          for (std::size_t i = 0; i < width; ++i)
            sum += std::pow(lines[i * kTokens + t] - centroids[c * width + i], 2.0f);
          return sum;
        };
        const float found = distance(static_cast<std::size_t>(codes[t]));
        for (std::size_t c = 0; c < kCentroids; ++c) ASSERT_LE(found, distance(c) + 1e-4f) << k->name << " " << t;
      }
    }
}

}  // namespace
}  // namespace snug
