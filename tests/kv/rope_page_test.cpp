// Pages of keys turn back to what was rotated token by token, and forward again, on every instruction set.

#include "kv/rope_page.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

using testing_support::random_values;

KvModel model_of(std::size_t dim, std::size_t pairs, bool split_half, float magnitude) {
  KvModel model;
  model.shapes = {{}, {1, static_cast<std::uint32_t>(dim), static_cast<std::uint32_t>(dim), 0}};
  KvRope rope{{}, magnitude, split_half};
  for (std::size_t i = 0; i < pairs; ++i)
    rope.inverse_frequency.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(pairs)));
  model.ropes = {{}, rope};
  return model;
}

void expect_pages_turn(std::size_t dim, std::size_t pairs, bool split_half, float magnitude) {
  const KvModel model = model_of(dim, pairs, split_half, magnitude);
  const RopePages ropes(model);
  for (const std::size_t start : {0u, 64u, 64u * 100, 64u * 9999}) {
    const std::vector<float> keys = random_values(kPageTokens * dim, 1);
    std::vector<bf16_t> tiles(kPageTokens * dim);
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      std::vector<float> key(keys.begin() + static_cast<std::ptrdiff_t>(t * dim),
                             keys.begin() + static_cast<std::ptrdiff_t>((t + 1) * dim));
      std::vector<float> cos(pairs), sin(pairs);
      for (std::size_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(start + t) * model.ropes[1].inverse_frequency[i];
        cos[i] = static_cast<float>(std::cos(angle)) * magnitude;
        sin[i] = static_cast<float>(std::sin(angle)) * magnitude;
      }
      kernels().rope(key.data(), cos.data(), sin.data(), pairs, split_half);
      kernels().store_key(key.data(), dim, t % kTileTokens, &tiles[t / kTileTokens * kv_tile_values(dim)]);
    }
    std::vector<float> lines(kPageTokens * dim);
    ropes.turn_back(1, start, tiles.data(), lines.data());
    for (std::size_t t = 0; t < kPageTokens; ++t)
      for (std::size_t d = 0; d < dim; ++d)
        ASSERT_NEAR(lines[d * kPageTokens + t], keys[t * dim + d], 0.03) << dim << " " << start << " " << t << " " << d;
    std::vector<bf16_t> again(tiles.size());
    ropes.turn(1, start, lines.data(), again.data());
    for (std::size_t i = 0; i < tiles.size(); ++i)
      ASSERT_LE(std::abs(static_cast<int>(again[i]) - static_cast<int>(tiles[i])),
                1 + 64 * ((tiles[i] & 0x7fff) < 0x3c00));
  }
}

TEST(RopePageTest, BothPairingsPartRotationAndMagnitude) {
  for (const bool split_half : {false, true}) {
    expect_pages_turn(64, 32, split_half, 1);
    expect_pages_turn(64, 32, split_half, 1.3f);
    expect_pages_turn(80, 20, split_half, 1);
    expect_pages_turn(32, 5, split_half, 0.7f);
    expect_pages_turn(16, 0, split_half, 1);
  }
}

TEST(RopePageTest, PositionsBeyondTheTablesAreRefused) {
  const RopePages ropes(model_of(64, 32, true, 1));
  EXPECT_THROW(ropes.at(1, std::size_t{1} << 24), Error);
}

TEST(RopePageTest, InstructionSetsAgree) {
  const KvModel model = model_of(96, 48, true, 1.1f);
  const RopePages ropes(model);
  const std::vector<float> lines = random_values(kPageTokens * 96, 2);
  const KvRotation rotation = ropes.at(1, 640);
  const auto tables = available_kernels();
  for (const KvSide side : {KvSide::keys, KvSide::values}) {
    const KvLines layout = page_lines(side, 96);
    std::vector<bf16_t> expected(lines.size());
    tables[0]->lines_to_tiles(lines.data(), layout, expected.data());
    for (const KernelTable* k : tables) {
      std::vector<bf16_t> tiles(lines.size());
      k->lines_to_tiles(lines.data(), layout, tiles.data());
      EXPECT_EQ(tiles, expected) << k->name;
      std::vector<float> back(lines.size());
      k->tiles_to_lines(tiles.data(), layout, back.data());
      for (std::size_t i = 0; i < lines.size(); ++i) ASSERT_NEAR(back[i], lines[i], std::abs(lines[i]) / 200);
      for (const bool turn_back : {false, true}) {
        std::vector<float> one = lines, other = lines;
        tables[0]->rotate_lines(one.data(), rotation, turn_back);
        k->rotate_lines(other.data(), rotation, turn_back);
        EXPECT_EQ(one, other) << k->name;
      }
    }
  }
}

}  // namespace
}  // namespace snug
