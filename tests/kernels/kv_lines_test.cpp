// Small dense products and widening, on every instruction set, at sizes that leave every kind of rest.

#include "kernels/kv_lines.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/kernels.hpp"
#include "kernels/kv_mixed.hpp"
#include "kernels/kv_pruned.hpp"
#include "kernels/kv_tile.hpp"
#include "support/bf16_value.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

using testing_support::bf16_value;
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

TEST(KvLinesTest, KeptAndCodedTokensComeBack) {
  std::mt19937 random(5);
  for (const std::size_t dim : {16u, 64u, 80u, 512u})
    for (const bool keys : {false, true}) {
      const KvMixed layout{dim, keys};
      std::vector<std::byte> page(layout.bytes());
      const auto put = [&](std::size_t at, float x) {
        available_kernels().front()->to_bf16(&x, 1, reinterpret_cast<bf16_t*>(&page[at]));
        return bf16_value(*reinterpret_cast<const bf16_t*>(&page[at]));
      };
      const auto some = [&] { return static_cast<float>(random() % 2000) / 1000 - 1; };
      std::vector<float> factor(dim, 1), mean(dim);
      for (std::size_t d = 0; keys && d < dim; ++d)
        factor[d] = put(layout.factors() + 2 * d, some()), mean[d] = put(layout.means() + 2 * d, some());
      std::vector<float> expected(64 * dim);  // in order of tiles
      std::uint64_t kept_bits = 0;
      std::size_t kept = 0, coded = 0;
      for (std::size_t t = 0; t < 64; ++t) {
        const bool is_kept = kept < KvMixed::kKept && (t % 3 == 0 || 64 - t == KvMixed::kKept - kept);
        if (is_kept) kept_bits |= std::uint64_t{1} << t;
        const std::size_t token = layout.codes() + coded * layout.token_bytes();
        for (std::size_t d = 0; d < dim; ++d) {
          float& out =
              expected[t / 16 * kv_tile_values(dim) + (keys ? key_index(t % 16, d) : value_index(t % 16, d, dim))];
          if (is_kept) {
            out = put(layout.kept() + (kept * dim + d) * 2, some());
            continue;
          }
          const std::size_t head = token + d / KvMixed::kGroup * (4 + KvMixed::kGroup / 4);
          if (d % KvMixed::kGroup == 0) put(head, some()), put(head + 2, some());
          const unsigned code = random() % 4;
          page[head + 4 + d % KvMixed::kGroup / 4] |= static_cast<std::byte>(code << d % 4 * 2);
          const auto value = [&](std::size_t at) { return bf16_value(*reinterpret_cast<const bf16_t*>(&page[at])); };
          out = (value(head + 2) + static_cast<float>(code) * value(head)) * factor[d] + mean[d];
        }
        is_kept ? ++kept : ++coded;
      }
      std::memcpy(page.data(), &kept_bits, sizeof kept_bits);
      for (const KernelTable* k : available_kernels()) {
        std::vector<bf16_t> tiles(expected.size());
        k->unpack_mixed(page.data(), layout, tiles.data());
        for (std::size_t i = 0; i < tiles.size(); ++i)
          ASSERT_NEAR(bf16_value(tiles[i]), expected[i], std::abs(expected[i]) / 200 + 1e-6)
              << k->name << ", dim " << dim << ", keys " << keys << ", at " << i;
      }
    }
}

}  // namespace
}  // namespace snug
