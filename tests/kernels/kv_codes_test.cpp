// Codes of KV pages: every instruction set packs and unpacks like the scalar one, errors stay within half a step, and
// each byte of a page matters.

#include "kernels/kv_codes.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"
#include "support/bf16_value.hpp"

namespace snug {
namespace {

constexpr std::size_t kTokens = 64, kTiles = kTokens / kTileTokens;

using testing_support::bf16_value;

KvCodes key_codes(std::size_t bits, std::size_t group, std::size_t dim) {
  return {bits, dim, kTiles, group, kv_tile_values(dim), 2 * kTileTokens};
}
KvCodes value_codes(std::size_t bits, std::size_t group, std::size_t dim) {
  return {bits, kTokens, dim / 16, group, 32, 2 * dim};
}

/// A page in which each line has its own magnitude.
std::vector<bf16_t> random_page(const KvCodes& codes, unsigned seed) {
  std::vector<bf16_t> tiles(codes.depth * codes.columns * 16);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (std::size_t p = 0; p < codes.depth / 2; ++p) {
    const float size[] = {std::exp(3 * normal(random)), std::exp(3 * normal(random))},
                middle[] = {10 * normal(random), 10 * normal(random)};
    for (std::size_t v = 0; v < codes.columns; ++v)
      for (std::size_t i = 0; i < 32; ++i) {
        const float x = size[i % 2] * (normal(random) + middle[i % 2]);
        kernels().to_bf16(&x, 1, &tiles[p * codes.pair_stride + v * codes.column_stride + i]);
      }
  }
  return tiles;
}

std::vector<KvCodes> all_codes() {
  std::vector<KvCodes> all;
  for (const std::size_t bits : {1u, 2u, 4u, 8u})
    for (const std::size_t dim : {16u, 64u, 80u, 96u, 256u}) {
      all.push_back(key_codes(bits, 2, dim));
      all.push_back(key_codes(bits, 4, dim));
      all.push_back(value_codes(bits, 2, dim));
      all.push_back(value_codes(bits, 4, dim));
    }
  return all;
}

TEST(KvCodesTest, ErrorsAreHalfAStep) {
  for (const KernelTable* k : available_kernels())
    for (const KvCodes& c : all_codes()) {
      const std::vector<bf16_t> tiles = random_page(c, 1);
      std::vector<std::byte> page(c.bytes());
      std::vector<bf16_t> back(tiles.size());
      k->pack_kv(tiles.data(), c, page.data());
      k->unpack_kv(page.data(), c, back.data());
      for (std::size_t p = 0; p < c.depth / 2; ++p)
        for (std::size_t first = 0; first < c.columns; first += c.group)
          for (std::size_t line = 0; line < 2; ++line) {
            const std::size_t last = std::min(c.columns, first + c.group);
            float low = INFINITY, high = -INFINITY, worst = 0, largest = 0;
            for (std::size_t v = first; v < last; ++v)
              for (std::size_t i = line; i < 32; i += 2) {
                const std::size_t at = p * c.pair_stride + v * c.column_stride + i;
                const float x = bf16_value(tiles[at]);
                low = std::min(low, x), high = std::max(high, x), largest = std::max(largest, std::abs(x));
                worst = std::max(worst, std::abs(x - bf16_value(back[at])));
              }
            // Scale and least value are bf16, and so are the results.
            const float step = (high - low + largest / 128) / static_cast<float>((1 << c.bits) - 1) * 1.01f;
            ASSERT_LE(worst, 0.5f * step + largest / 128) << k->name << " " << c.bits << " bits, pair " << p;
          }
    }
}

TEST(KvCodesTest, InstructionSetsAgree) {
  const auto tables = available_kernels();
  for (const KvCodes& c : all_codes()) {
    const std::vector<bf16_t> tiles = random_page(c, 2);
    std::vector<std::byte> expected(c.bytes());
    std::vector<bf16_t> expected_tiles(tiles.size());
    tables[0]->pack_kv(tiles.data(), c, expected.data());
    tables[0]->unpack_kv(expected.data(), c, expected_tiles.data());
    for (const KernelTable* k : tables) {
      std::vector<std::byte> page(c.bytes());
      std::vector<bf16_t> back(tiles.size());
      k->pack_kv(tiles.data(), c, page.data());
      k->unpack_kv(expected.data(), c, back.data());
      std::size_t codes_off = 0;
      for (std::size_t i = 0; i < page.size(); ++i) codes_off += page[i] != expected[i];
      EXPECT_LE(codes_off, page.size() / 1000) << k->name;  // ties, where products are fused or not
      EXPECT_EQ(back, expected_tiles) << k->name << " " << c.bits << " bits, " << c.depth / 2 << " pairs";
    }
  }
}

TEST(KvCodesTest, EveryByteOfACodeMatters) {
  const KvCodes c = key_codes(4, 2, 64);
  const std::vector<bf16_t> tiles = random_page(c, 3);
  std::vector<std::byte> page(c.bytes());
  kernels().pack_kv(tiles.data(), c, page.data());
  std::vector<bf16_t> sound(tiles.size()), other(tiles.size());
  kernels().unpack_kv(page.data(), c, sound.data());
  for (std::size_t i = 0; i < page.size(); i += 37) {
    page[i] ^= std::byte{0x11};
    kernels().unpack_kv(page.data(), c, other.data());
    EXPECT_NE(other, sound) << i;
    page[i] ^= std::byte{0x11};
  }
}

double error_with(const KernelTable& kernels, KvCodes codes, KvCodes::Ends ends, const std::vector<bf16_t>& tiles) {
  codes.ends = ends;
  std::vector<std::byte> page(codes.bytes());
  std::vector<bf16_t> back(tiles.size());
  kernels.pack_kv(tiles.data(), codes, page.data());
  kernels.unpack_kv(page.data(), codes, back.data());
  double error = 0;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const double off = bf16_value(tiles[i]) - bf16_value(back[i]);
    error += off * off;
  }
  return error;
}

TEST(KvCodesTest, EndsThatFitAreNearerThanExtremes) {
  for (const KernelTable* k : available_kernels())
    for (const KvCodes& c : {key_codes(2, 4, 64), value_codes(2, 4, 96), key_codes(1, 2, 64)}) {
      const std::vector<bf16_t> tiles = random_page(c, 6);
      const double extremes = error_with(*k, c, KvCodes::Ends::extremes, tiles);
      EXPECT_LT(error_with(*k, c, KvCodes::Ends::fitted, tiles), 0.8 * extremes) << k->name;
      if (c.bits == 1) {
        EXPECT_LT(error_with(*k, c, KvCodes::Ends::half_means, tiles), 0.5 * extremes) << k->name;
      }
    }
}

/// A product of low rank and outliers are added to the page's values.
TEST(KvCodesTest, CorrectionsAreAdded) {
  std::mt19937 random(4);
  for (const std::size_t dim : {16u, 80u, 512u})
    for (const KvCodes& plain : {key_codes(4, 4, dim), value_codes(2, 4, dim)}) {
      KvCodes c = plain;
      c.low_rank = true, c.outliers = 2;
      std::vector<bf16_t> tiles = random_page(c, 5);
      std::vector<std::byte> page(c.bytes());
      kernels().pack_kv(tiles.data(), c, page.data());
      kernels().unpack_kv(page.data(), plain, tiles.data());
      const auto put = [&](std::size_t at, float x) { kernels().to_bf16(&x, 1, reinterpret_cast<bf16_t*>(&page[at])); };
      std::vector<float> expected(c.depth * c.positions());
      const auto at = [&](std::size_t line, std::size_t i) -> float& { return expected[line * c.positions() + i]; };
      for (std::size_t r = 0; r < 2 * c.rank(); ++r) put(c.factor_scales() + 2 * r, r < 2 ? 0.0625f : 0.03125f);
      for (std::size_t i = c.factors(); i < c.factors() + 2 * (c.depth + c.positions()); ++i)
        page[i] = static_cast<std::byte>(random() % 41 - 20);
      const auto factor = [&](std::size_t i) { return static_cast<std::int8_t>(page[c.factors() + i]); };
      for (std::size_t l = 0; l < c.depth; ++l)
        for (std::size_t i = 0; i < c.positions(); ++i) {
          at(l, i) = bf16_value(tiles[c.index(l, i)]);
          for (std::size_t r = 0; r < c.rank(); ++r)
            at(l, i) += 0.0625f * 0.03125f * static_cast<float>(factor(r * c.depth + l)) *
                        static_cast<float>(factor(c.rank() * c.depth + r * c.positions() + i));
        }
      for (std::size_t o = 0; o < c.depth * c.outliers; ++o) {
        const std::size_t place = random() % (c.positions() + 1);  // what lies outside is passed over
        std::memcpy(&page[c.outlier_places() + o * c.place_bytes()], &place, c.place_bytes());
        put(c.outlier_values() + 2 * o, 1.5f);
        if (const std::size_t stored = c.place(&page[c.outlier_places() + o * c.place_bytes()]); stored < c.positions())
          at(o / c.outliers, stored) += 1.5f;
      }
      for (const KernelTable* k : available_kernels()) {
        k->unpack_kv(page.data(), c, tiles.data());
        for (std::size_t l = 0; l < c.depth; ++l)
          for (std::size_t i = 0; i < c.positions(); ++i)
            ASSERT_NEAR(bf16_value(tiles[c.index(l, i)]), at(l, i), 0.02f * (1 + std::abs(at(l, i)))) << k->name;
      }
    }
}

TEST(KvCodesTest, ExcessIsOfTheScales) {
  const KvCodes c = key_codes(2, 2, 80);
  const std::vector<bf16_t> tiles = random_page(c, 5);
  std::vector<std::byte> page(c.bytes());
  kernels().pack_kv(tiles.data(), c, page.data());
  std::vector<bf16_t> excess(c.groups() * c.depth);
  for (const KernelTable* k : available_kernels()) {
    k->kv_excess(page.data(), c, -0.5f, excess.data());
    for (std::size_t i = 0; i < excess.size(); ++i) {
      const auto* scales = reinterpret_cast<const bf16_t*>(page.data() + i / c.depth * c.head_bytes());
      const float scale = bf16_value(scales[i % c.depth]);
      ASSERT_NEAR(bf16_value(excess[i]), -0.5f * scale * scale, scale * scale / 256) << k->name;
    }
  }
}

}  // namespace
}  // namespace snug
