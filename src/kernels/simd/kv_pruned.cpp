// Pruned keys to tiles (layout: kernels/kv_pruned.hpp).

#include "kernels/kv_pruned.hpp"

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

void unpack_pruned_keys(const std::byte* page, const KvPruned& layout, bf16_t* tiles) {
  constexpr std::size_t kLine = 2 * kTileTokens;
  const auto* means = reinterpret_cast<const bf16_t*>(page + layout.means());
  const auto* lines = reinterpret_cast<const bf16_t*>(page + layout.lines());
  const std::size_t tile = kv_tile_values(layout.dim), most_means = layout.dim - layout.kept;
  std::size_t used = 0, dropped = 0;
  for (std::size_t p = 0; p < layout.dim / 2; ++p, tiles += kLine) {
    const unsigned bits = static_cast<unsigned>(page[p / 4]) >> p % 4 * 2 & 3;
    const std::size_t count = (bits & 1) + (bits >> 1);
    // A damaged page must not lead beyond its end.
    if (used + count > layout.kept || dropped + 2 - count > most_means) return;
    const bf16_t* from = lines + used * kTileTokens;
    const std::size_t step = layout.kept * kTileTokens;
    if (count == 2) {
      for (std::size_t t = 0; t < 64 / kTileTokens; ++t)
        __builtin_memcpy(tiles + t * tile, from + t * step, kLine * sizeof(bf16_t));
    } else {
      const std::uint32_t mean = count == 0  ? means[dropped] | std::uint32_t{means[dropped + 1]} << 16
                                 : bits == 1 ? std::uint32_t{means[dropped]} << 16
                                             : means[dropped];
      for (std::size_t t = 0; t < 64 / kTileTokens; ++t) {
        U32x16 words = splat(mean);
        if (count == 1) words |= widen(load_vector<U16x16>(from + t * step)) << splat(bits == 1 ? 0 : 16);
        store_words(tiles + t * tile, words);
      }
    }
    used += count;
    dropped += 2 - count;
  }
}

}  // namespace snug::SNUG_ISA_NS
