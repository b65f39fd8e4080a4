// Codes of coupled channels (layout: kernels/kv_centroids.hpp). Centroids are read whole, which is faster than
// gathering their channels, and put in order then.

#include "kernels/kv_centroids.hpp"

#include "kernels/kv_tile.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

constexpr std::size_t kTokens = 64;

/// `out` + token * stride = the token's centroid.
template <std::size_t kWidth>
SNUG_INLINE void copy_centroids(const std::uint8_t* codes, const bf16_t* centroids, bf16_t* out, std::size_t stride) {
  for (std::size_t t = 0; t < kTokens; ++t)
    __builtin_memcpy(out + t * stride, centroids + codes[t] * kWidth, kWidth * sizeof(bf16_t));
}

/// Every second of 32 words.
SNUG_INLINE void unzip(U32x16 a, U32x16 b, U32x16& even, U32x16& odd) {
  even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

template <std::size_t kWidth>
void keys(const std::uint8_t* codes, const bf16_t* centroids, std::size_t groups, bf16_t* tiles) {
  constexpr std::size_t kPairs = kWidth / 2;
  const std::size_t tile = kv_tile_values(groups * kWidth);
  alignas(64) bf16_t rows[kTokens * kWidth];
  for (std::size_t g = 0; g < groups; ++g) {
    copy_centroids<kWidth>(codes + g * kTokens, centroids + g * kCentroids * kWidth, rows, kWidth);
    for (std::size_t t = 0; t < kTokens / kTileTokens; ++t) {
      U32x16 v[kPairs], w[kPairs];
      for (std::size_t i = 0; i < kPairs; ++i) v[i] = load_u32(rows + t * kTileTokens * kWidth + 32 * i);
      if constexpr (kPairs == 2) {
        unzip(v[0], v[1], w[0], w[1]);
      } else {
        U32x16 even[2], odd[2];
        unzip(v[0], v[1], even[0], odd[0]);
        unzip(v[2], v[3], even[1], odd[1]);
        unzip(even[0], even[1], w[0], w[2]);
        unzip(odd[0], odd[1], w[1], w[3]);
      }
      bf16_t* out = tiles + t * tile + g * kPairs * 2 * kTileTokens;
      for (std::size_t i = 0; i < kPairs; ++i) store_words(out + i * 2 * kTileTokens, w[i]);
    }
  }
}

typedef std::uint16_t U16x4 __attribute__((vector_size(8)));
typedef std::uint16_t U16x8 __attribute__((vector_size(16)));

/// Channels of two tokens in turn.
SNUG_INLINE void zip(const bf16_t* a, const bf16_t* b, U16x4, bf16_t* out) {
  const auto zipped = __builtin_shufflevector(load_vector<U16x4>(a), load_vector<U16x4>(b), 0, 4, 1, 5, 2, 6, 3, 7);
  __builtin_memcpy(out, &zipped, sizeof zipped);
}
SNUG_INLINE void zip(const bf16_t* a, const bf16_t* b, U16x8, bf16_t* out) {
  const auto x = load_vector<U16x8>(a), y = load_vector<U16x8>(b);
  const auto low = __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11),
             high = __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
  __builtin_memcpy(out, &low, sizeof low);
  __builtin_memcpy(out + 8, &high, sizeof high);
}

template <class Channels>
void values(const std::uint8_t* codes, const bf16_t* centroids, std::size_t groups, bf16_t* tiles) {
  constexpr std::size_t kWidth = sizeof(Channels) / sizeof(bf16_t);
  const std::size_t dim = groups * kWidth;
  for (std::size_t g = 0; g < groups; ++g, codes += kTokens, centroids += kCentroids * kWidth)
    for (std::size_t t = 0; t < kTokens; t += 2)
      zip(centroids + codes[t] * kWidth, centroids + codes[t + 1] * kWidth, Channels{},
          tiles + t * dim + g * 2 * kWidth);
}

/// Of the 32 tokens at x: the first centroid with the largest bias + x . centroid.
template <std::size_t kWidth>
SNUG_INLINE void nearest_of(const float* x, const float* centroids, const float* bias, std::uint8_t* codes) {
  F32x16 in[2][kWidth], best[2] = {set1(-kInfinity), set1(-kInfinity)}, chosen[2] = {zero(), zero()};
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t i = 0; i < kWidth; ++i) in[h][i] = load(x + i * kTokens + h * 16);
  for (std::size_t c = 0; c < kCentroids; ++c)
    for (std::size_t h = 0; h < 2; ++h) {
      F32x16 score = set1(bias[c]);
      for (std::size_t i = 0; i < kWidth; ++i) score = fma(set1(centroids[c * kWidth + i]), in[h][i], score);
      const Mask16 better = less(best[h], score);
      best[h] = select(better, score, best[h]);
      chosen[h] = select(better, set1(static_cast<float>(c)), chosen[h]);
    }
  for (std::size_t h = 0; h < 2; ++h) {
    float lanes[16];
    store(lanes, chosen[h]);
    for (std::size_t i = 0; i < 16; ++i) codes[h * 16 + i] = static_cast<std::uint8_t>(lanes[i]);
  }
}

}  // namespace

void keys_of_centroids(const std::byte* page, const bf16_t* centroids, const KvCentroids& c, bf16_t* tiles) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(page);
  c.width == 4 ? keys<4>(codes, centroids, c.groups, tiles) : keys<8>(codes, centroids, c.groups, tiles);
}

void values_of_centroids(const std::byte* page, const bf16_t* centroids, const KvCentroids& c, bf16_t* tiles) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(page);
  c.width == 4 ? values<U16x4>(codes, centroids, c.groups, tiles) : values<U16x8>(codes, centroids, c.groups, tiles);
}

void nearest_centroids(const float* lines, const float* centroids, const float* bias, std::size_t width,
                       std::byte* codes) {
  auto* out = reinterpret_cast<std::uint8_t*>(codes);
  for (std::size_t t = 0; t < kTokens; t += 32) {
    if (width == 4)
      nearest_of<4>(lines + t, centroids, bias, out + t);
    else
      nearest_of<8>(lines + t, centroids, bias, out + t);
  }
}

}  // namespace snug::SNUG_ISA_NS
