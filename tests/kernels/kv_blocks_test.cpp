// Block floating point pages: every instruction set gives what the layout says, to the bit.

#include "kernels/kv_blocks.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernels.hpp"

namespace snug {
namespace {

TEST(KvBlocksTest, UnpackWhatTheLayoutSays) {
  std::mt19937 random(3);
  for (const bool keys : {true, false})
    for (const bool rearranged : {true, false})
      for (const std::size_t dim : {16u, 64u, 80u, 256u}) {
        const KvBlocks layout{keys, rearranged, dim};
        std::vector<std::byte> page(layout.bytes());
        for (std::size_t i = 0; i < page.size(); ++i) {
          // Exponents around 1; anything for the rest.
          const bool exponent = i >= layout.exponents() && i < layout.mantissas();
          page[i] = static_cast<std::byte>(exponent ? 110 + random() % 30 : random());
        }
        for (const KernelTable* k : available_kernels()) {
          std::vector<bf16_t> tiles(KvBlocks::kTokens * dim);
          k->unpack_kv_blocks(page.data(), layout, tiles.data());
          for (std::size_t token = 0; token < KvBlocks::kTokens; ++token)
            for (std::size_t c = 0; c < dim; ++c) {
              const std::size_t stored = rearranged ? std::to_integer<std::size_t>(page[c]) : c / KvBlocks::kBlock;
              const std::size_t block = stored < layout.blocks() ? stored : 0;
              const auto mantissa =
                  std::to_integer<unsigned>(page[layout.mantissas() + layout.mantissa_byte(token, c)]);
              const int steps = static_cast<int>(layout.upper(token, c) ? mantissa >> 4 : mantissa & 15) - 8;
              const int exponent =
                  std::to_integer<int>(page[layout.exponents() + layout.exponent_index(token, block)]) - 127;
              const std::size_t slot = token % kTileTokens, at = keys ? key_index(slot, c) : value_index(slot, c, dim);
              const std::uint32_t bits = std::uint32_t{tiles[token / kTileTokens * kv_tile_values(dim) + at]} << 16;
              float value;
              std::memcpy(&value, &bits, sizeof value);
              ASSERT_EQ(value, std::ldexp(static_cast<float>(steps), exponent)) << k->name << " " << dim;
            }
        }
      }
}

}  // namespace
}  // namespace snug
