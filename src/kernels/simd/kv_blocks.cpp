// Block floating point pages to bf16 tiles (layout: kernels/kv_blocks.hpp).

#include "kernels/kv_blocks.hpp"

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

U32x16 bits_of(F32x16 v) {
  U32x16 out;
  static_assert(sizeof(out) == sizeof(v));
  std::memcpy(&out, &v, sizeof(v));
  return out;
}

/// 16 pairs of mantissas times their powers of two (as bits of f32), as pairs of bf16: nothing is rounded.
void store_pairs(const std::byte* unit, U32x16 first, U32x16 second, bf16_t* out) {
  const U32x16 bytes = widen(load_vector<U8x16>(unit));
  const F32x16 bias = set1(-8.0f);
  const F32x16 low = mul(add(to_f32(bytes & splat(15)), bias), as_f32(first));
  const F32x16 high = mul(add(to_f32(bytes >> splat(4)), bias), as_f32(second));
  const U32x16 pairs = bits_of(low) >> splat(16) | (bits_of(high) & splat(0xffff0000u));
  std::memcpy(out, &pairs, sizeof(pairs));
}

/// The block of each channel; of a damaged page, some block.
struct ChannelBlocks {
  std::uint8_t of[KvBlocks::kBlock * KvBlocks::kMostBlocks];

  ChannelBlocks(const std::byte* page, const KvBlocks& layout) {
    const std::size_t blocks = layout.blocks();
    for (std::size_t c = 0; c < layout.dim; ++c) {
      const auto stored = std::to_integer<std::uint8_t>(page[c]);
      of[c] = !layout.rearranged ? static_cast<std::uint8_t>(c / KvBlocks::kBlock)
              : stored < blocks  ? stored
                                 : std::uint8_t{0};
    }
  }
};

void unpack_keys(const std::byte* page, const KvBlocks& layout, bf16_t* tiles) {
  const std::byte *exponents = page + layout.exponents(), *units = page + layout.mantissas();
  const ChannelBlocks block(page, layout);
  for (std::size_t tile = 0; tile < KvBlocks::kTokens / kTileTokens; ++tile) {
    U32x16 powers[KvBlocks::kMostBlocks];
    for (std::size_t b = 0; b < layout.blocks(); ++b, exponents += kTileTokens)
      powers[b] = widen(load_vector<U8x16>(exponents)) << splat(23);
    for (std::size_t d = 0; d < layout.dim; d += 2, units += kTileTokens, tiles += 2 * kTileTokens)
      store_pairs(units, powers[block.of[d]], powers[block.of[d + 1]], tiles);
  }
}

void unpack_values(const std::byte* page, const KvBlocks& layout, bf16_t* tiles) {
  const std::byte* exponents = page + layout.exponents();
  const std::size_t blocks = layout.blocks();
  const ChannelBlocks block(page, layout);
  for (std::size_t d = 0; d < layout.dim; d += 16) {
    // Lanes of each block; a block that has none of these channels is passed over.
    U32x16 lanes[KvBlocks::kMostBlocks];
    std::size_t present[KvBlocks::kMostBlocks], count = 0;
    for (std::size_t b = 0; b < blocks; ++b) {
      std::uint32_t mask[16], any = 0;
      for (std::size_t i = 0; i < 16; ++i) any |= mask[i] = block.of[d + i] == b ? 0xffffffffu : 0u;
      if (any == 0) continue;
      lanes[count] = load_u32(mask);
      present[count++] = b;
    }
    for (std::size_t token = 0; token < KvBlocks::kTokens; token += 2) {
      U32x16 first{}, second{};
      for (std::size_t i = 0; i < count; ++i) {
        const std::byte* own = exponents + token * blocks + present[i];
        first |= lanes[i] & splat(std::to_integer<std::uint32_t>(own[0]) << 23);
        second |= lanes[i] & splat(std::to_integer<std::uint32_t>(own[blocks]) << 23);
      }
      store_pairs(page + layout.mantissas() + token / 2 * layout.dim + d, first, second,
                  tiles + (token / 2 * layout.dim + d) * 2);
    }
  }
}

}  // namespace

void unpack_kv_blocks(const std::byte* page, const KvBlocks& layout, bf16_t* tiles) {
  (layout.keys ? unpack_keys : unpack_values)(page, layout, tiles);
}

}  // namespace snug::SNUG_ISA_NS
