// Small dense products and widening, on every instruction set, at sizes that leave every kind of rest.

#include "kernels/kv_lines.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernels.hpp"
#include "kernels/kv_pruned.hpp"
#include "kernels/kv_tile.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

using testing_support::random_values;

TEST(KvLinesTest, ProductsAreAdded) {
  for (const KernelTable* k : available_kernels())
    for (const std::size_t m : {1u, 3u, 4u, 7u, 64u})
      for (const std::size_t n : {1u, 15u, 16u, 31u, 32u, 33u, 64u, 72u})
        for (const std::size_t depth : {1u, 5u, 64u}) {
          const std::vector<float> a = random_values(m * depth, 1), b = random_values(depth * n, 2);
          std::vector<float> out = random_values(m * n, 3);
          std::vector<double> expected(out.begin(), out.end());
          for (std::size_t r = 0; r < m; ++r)
            for (std::size_t j = 0; j < depth; ++j)
              for (std::size_t c = 0; c < n; ++c) expected[r * n + c] += double{a[r * depth + j]} * b[j * n + c];
          k->add_product(a.data(), b.data(), m, depth, n, out.data());
          for (std::size_t i = 0; i < out.size(); ++i)
            ASSERT_NEAR(out[i], expected[i], 1e-4) << k->name << " " << m << " " << depth << " " << n;
        }
}

TEST(KvLinesTest, WhatIsRoundedWidens) {
  for (const KernelTable* k : available_kernels()) {
    const std::vector<float> x = random_values(96, 1);
    std::vector<bf16_t> rounded(x.size());
    std::vector<float> back(x.size());
    k->to_bf16(x.data(), x.size(), rounded.data());
    k->from_bf16(rounded.data(), x.size(), back.data());
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(back[i], x[i], std::abs(x[i]) / 256) << k->name;
  }
}

TEST(KvLinesTest, TilesTurnAsLinesDo) {
  for (const KernelTable* k : available_kernels())
    for (const bool split_half : {false, true})
      for (const std::size_t pairs : {32u, 10u}) {
        constexpr std::size_t kDim = 64;
        std::vector<float> cos = random_values(pairs, 1), sin = random_values(pairs, 2),
                           offset_cos = random_values(64 * pairs, 3), offset_sin = random_values(64 * pairs, 4);
        const KvRotation rotation{pairs, split_half, cos.data(), sin.data(), offset_cos.data(), offset_sin.data(), 1};
        const KvLines layout{kDim / 2, 4, kv_tile_values(kDim), 2 * kTileTokens};
        const std::vector<float> values = random_values(64 * kDim, 5);
        std::vector<bf16_t> tiles(values.size()), expected(values.size());
        k->to_bf16(values.data(), values.size(), tiles.data());
        std::vector<float> lines(values.size());
        k->tiles_to_lines(tiles.data(), layout, lines.data());
        k->rotate_lines(lines.data(), rotation, false);
        k->lines_to_tiles(lines.data(), layout, expected.data());
        k->rotate_key_tiles(tiles.data(), kDim, rotation);
        EXPECT_EQ(tiles, expected) << k->name << ", " << pairs << " pairs, split " << split_half;
      }
}

TEST(KvLinesTest, PrunedKeysComeBack) {
  constexpr KvPruned kLayout{64, 38};
  constexpr std::size_t kTile = kv_tile_values(64);
  std::vector<bool> stays(kLayout.dim);
  for (std::size_t d = 0, left = kLayout.kept; d < stays.size(); ++d)
    if (left > 0 && (d * 7 % 5 < 3 || stays.size() - d == left)) stays[d] = true, --left;
  std::vector<std::byte> page(kLayout.bytes());
  std::vector<bf16_t> expected(64 * kLayout.dim);
  auto* mean = reinterpret_cast<bf16_t*>(page.data() + kLayout.means());
  auto* lines = reinterpret_cast<bf16_t*>(page.data() + kLayout.lines());
  for (std::size_t d = 0, used = 0; d < kLayout.dim; ++d) {
    if (stays[d]) page[d / 8] |= std::byte{1} << d % 8;
    const bool pair = stays[d / 2 * 2] && stays[d / 2 * 2 + 1];
    for (std::size_t t = 0; t < 64; ++t) {
      const auto value = static_cast<bf16_t>(stays[d] ? 100 * t + d : 7000 + d);
      expected[t / 16 * kTile + key_index(t % 16, d)] = value;
      if (!stays[d]) *mean = value;
      // The second of a pair lies between the first's values.
      const std::size_t at = pair ? (used - d % 2) * 16 + t % 16 * 2 + d % 2 : used * 16 + t % 16;
      if (stays[d]) lines[t / 16 * kLayout.kept * 16 + at] = value;
    }
    used += stays[d];
    mean += !stays[d];
  }
  for (const KernelTable* k : available_kernels()) {
    std::vector<bf16_t> tiles(expected.size());
    k->unpack_pruned_keys(page.data(), kLayout, tiles.data());
    EXPECT_EQ(tiles, expected) << k->name;
  }
}

}  // namespace
}  // namespace snug
