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
  constexpr std::size_t kBlocks = KvBlocks::kMostBlocks, kMostVectors = KvBlocks::kBlock * kBlocks / 16;
  const std::byte* exponents = page + layout.exponents();
  const std::size_t blocks = layout.blocks(), vectors = layout.dim / 16;
  const ChannelBlocks block(page, layout);
  // Lanes of each block in 16 channels; a block that has none of them is passed over.
  U32x16 lanes[kMostVectors][kBlocks];
  std::size_t present[kMostVectors][kBlocks], count[kMostVectors] = {};
  for (std::size_t v = 0; v < vectors; ++v)
    for (std::size_t b = 0; b < blocks; ++b) {
      std::uint32_t mask[16], any = 0;
      for (std::size_t i = 0; i < 16; ++i) any |= mask[i] = block.of[16 * v + i] == b ? 0xffffffffu : 0u;
      if (any == 0) continue;
      lanes[v][count[v]] = load_u32(mask);
      present[v][count[v]++] = b;
    }
  for (std::size_t token = 0; token < KvBlocks::kTokens; token += 2, exponents += 2 * blocks) {
    U32x16 powers[2][kBlocks];
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t i = 0; i < 2; ++i)
        powers[i][b] = splat(std::to_integer<std::uint32_t>(exponents[i * blocks + b]) << 23);
    const std::byte* units = page + layout.mantissas() + token / 2 * layout.dim;
    for (std::size_t v = 0; v < vectors; ++v) {
      U32x16 first{}, second{};
      for (std::size_t i = 0; i < count[v]; ++i) {
        first |= lanes[v][i] & powers[0][present[v][i]];
        second |= lanes[v][i] & powers[1][present[v][i]];
      }
      store_pairs(units + 16 * v, first, second, tiles + (token / 2 * layout.dim + 16 * v) * 2);
    }
  }
}

}  // namespace

void unpack_kv_blocks(const std::byte* page, const KvBlocks& layout, bf16_t* tiles) {
  (layout.keys ? unpack_keys : unpack_values)(page, layout, tiles);
}

}  // namespace snug::SNUG_ISA_NS
