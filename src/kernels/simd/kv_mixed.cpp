// Pages of kept and coded tokens to tiles (layout: kernels/kv_mixed.hpp): 16 tokens become rows, which are put in
// order.

#include "kernels/kv_mixed.hpp"

#include <utility>

#include "kernels/kv_tile.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

constexpr std::size_t kMaxDim = 512;

/// Swaps what is off the diagonal in blocks of `kStep` lanes.
template <std::size_t kStep, std::size_t... kLane>
SNUG_INLINE void exchange(U32x16& a, U32x16& b, std::index_sequence<kLane...>) {
  const U32x16 x = a, y = b;
  a = __builtin_shufflevector(x, y, static_cast<int>((kLane & kStep) == 0 ? kLane : 16 + kLane - kStep)...);
  b = __builtin_shufflevector(x, y, static_cast<int>((kLane & kStep) == 0 ? kLane + kStep : 16 + kLane)...);
}

template <std::size_t kStep>
SNUG_INLINE void exchange_all(U32x16* v) {
  SNUG_UNROLL(16)
  for (std::size_t i = 0; i < 16; ++i)
    if ((i & kStep) == 0) exchange<kStep>(v[i], v[i + kStep], std::make_index_sequence<16>());
}

/// Rows of 16 tokens to a tile of keys: pairs of channels by tokens.
SNUG_INLINE void key_tile(const bf16_t* rows, std::size_t dim, bf16_t* tile) {
  for (std::size_t d = 0; d < dim; d += 32) {
    // The last block of a dim that is no multiple of 32 goes beyond its rows, into memory that is there.
    U32x16 v[16];
    for (std::size_t t = 0; t < 16; ++t) v[t] = load_u32(rows + t * dim + d);
    exchange_all<1>(v);
    exchange_all<2>(v);
    exchange_all<4>(v);
    exchange_all<8>(v);
    const std::size_t pairs = dim - d < 32 ? (dim - d) / 2 : 16;
    for (std::size_t p = 0; p < pairs; ++p) store_words(tile + (d / 2 + p) * 2 * kTileTokens, v[p]);
  }
}

SNUG_INLINE void value_tile(const bf16_t* rows, std::size_t dim, bf16_t* tile) {
  for (std::size_t t = 0; t < kTileTokens; t += 2)
    for (std::size_t d = 0; d < dim; d += 16) {
      const U32x16 first = widen(load_vector<U16x16>(rows + t * dim + d)),
                   second = widen(load_vector<U16x16>(rows + (t + 1) * dim + d));
      store_words(tile + t * dim + 2 * d, first | second << splat(16));
    }
}

/// factor: null, no balance.
SNUG_INLINE void coded_row(const std::byte* token, std::size_t dim, const float* factor, const float* mean,
                           bf16_t* row) {
  const U32x16 shifts = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  for (std::size_t group = 0; group < dim; group += KvMixed::kGroup) {
    const F32x16 scale = set1(widen_bf16(load_vector<bf16_t>(token))),
                 least = set1(widen_bf16(load_vector<bf16_t>(token + sizeof(bf16_t))));
    token += 2 * sizeof(bf16_t);
    for (std::size_t d = group; d < dim && d < group + KvMixed::kGroup; d += 16, token += sizeof(std::uint32_t)) {
      const U32x16 codes = splat(load_vector<std::uint32_t>(token)) >> shifts & splat(3);
      F32x16 x = fma(to_f32(codes), scale, least);
      if (factor != nullptr) x = fma(x, load(factor + d), load(mean + d));
      store_bf16(row + d, x);
    }
  }
}

}  // namespace

void unpack_mixed(const std::byte* page, const KvMixed& layout, bf16_t* tiles) {
  const std::size_t dim = layout.dim;
  std::uint64_t is_kept;
  __builtin_memcpy(&is_kept, page, sizeof is_kept);
  alignas(64) bf16_t rows[kTileTokens * kMaxDim + 32];
  alignas(64) float factor[kMaxDim], mean[kMaxDim];
  for (std::size_t d = 0; layout.keys && d < dim; d += 16) {
    store(factor + d, load_bf16(reinterpret_cast<const bf16_t*>(page + layout.factors()) + d));
    store(mean + d, load_bf16(reinterpret_cast<const bf16_t*>(page + layout.means()) + d));
  }
  std::size_t kept = 0, coded = 0;
  for (std::size_t t = 0; t < 64; ++t) {
    bf16_t* row = rows + t % kTileTokens * dim;
    // A damaged page must not lead beyond its end.
    if (coded == KvMixed::kCoded || (kept < KvMixed::kKept && (is_kept >> t & 1) != 0))
      __builtin_memcpy(row, page + layout.kept() + kept++ * dim * sizeof(bf16_t), dim * sizeof(bf16_t));
    else
      coded_row(page + layout.codes() + coded++ * layout.token_bytes(), dim, layout.keys ? factor : nullptr, mean, row);
    if (t % kTileTokens != kTileTokens - 1) continue;
    bf16_t* tile = tiles + t / kTileTokens * kv_tile_values(dim);
    layout.keys ? key_tile(rows, dim, tile) : value_tile(rows, dim, tile);
  }
}

}  // namespace snug::SNUG_ISA_NS
