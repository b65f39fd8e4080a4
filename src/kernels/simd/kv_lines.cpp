// Pages of keys and values between bf16 tiles and f32 lines, and the rotation of keys (layout: kernels/kv_lines.hpp).

#include "kernels/kv_lines.hpp"

#include "kernels/kv_tile.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

constexpr std::size_t kTokens = 64;

struct Turn {
  F32x16 cos, sin;
};

/// Of pair i and tokens t to t + 15 of the page; its cosines and sines are multiplied by `factor`.
SNUG_INLINE Turn turn_of(const KvRotation& r, std::size_t i, std::size_t t, float factor = 1) {
  const F32x16 cos = set1(r.cos[i] * factor), sin = set1(r.sin[i] * factor);
  const F32x16 oc = load(r.offset_cos + i * kTokens + t), os = load(r.offset_sin + i * kTokens + t);
  return {sub(mul(cos, oc), mul(sin, os)), add(mul(sin, oc), mul(cos, os))};
}

SNUG_INLINE void turn_pair(F32x16& x, F32x16& y, Turn by) {
  const F32x16 a = x, b = y;
  x = sub(mul(a, by.cos), mul(b, by.sin));
  y = add(mul(a, by.sin), mul(b, by.cos));
}

}  // namespace

void tiles_to_lines(const bf16_t* tiles, const KvLines& l, float* lines) {
  for (std::size_t p = 0; p < l.pairs; ++p)
    for (std::size_t v = 0; v < l.vectors; ++v) {
      const U32x16 pairs = load_u32(tiles + p * l.pair_stride + v * l.vector_stride);
      float* even = lines + 2 * p * l.length() + v * 16;
      store(even, even_bf16(pairs));
      store(even + l.length(), odd_bf16(pairs));
    }
}

void lines_to_tiles(const float* lines, const KvLines& l, bf16_t* tiles) {
  for (std::size_t p = 0; p < l.pairs; ++p)
    for (std::size_t v = 0; v < l.vectors; ++v) {
      const float* even = lines + 2 * p * l.length() + v * 16;
      store_pairs(tiles + p * l.pair_stride + v * l.vector_stride, load(even), load(even + l.length()));
    }
}

void rotate_lines(float* lines, const KvRotation& r, bool back) {
  for (std::size_t i = 0; i < r.pairs; ++i) {
    float* a = lines + (r.split_half ? i : 2 * i) * kTokens;
    float* b = a + (r.split_half ? r.pairs : 1) * kTokens;
    for (std::size_t t = 0; t < kTokens; t += 16) {
      Turn by = turn_of(r, i, t, back ? r.inverse_square : 1);
      if (back) by.sin = sub(zero(), by.sin);
      F32x16 x = load(a + t), y = load(b + t);
      turn_pair(x, y, by);
      store(a + t, x);
      store(b + t, y);
    }
  }
}

void rotate_key_tiles(bf16_t* tiles, std::size_t dim, const KvRotation& r) {
  constexpr std::size_t kLine = 2 * kTileTokens;  // two channels of a tile's tokens
  for (std::size_t t = 0; t < kTokens; t += kTileTokens, tiles += kv_tile_values(dim)) {
    if (!r.split_half) {
      for (std::size_t i = 0; i < r.pairs; ++i) {
        const U32x16 words = load_u32(tiles + i * kLine);
        F32x16 x = even_bf16(words), y = odd_bf16(words);
        turn_pair(x, y, turn_of(r, i, t));
        store_pairs(tiles + i * kLine, x, y);
      }
      continue;
    }
    for (std::size_t i = 0; i < r.pairs; i += 2) {
      bf16_t *low = tiles + i / 2 * kLine, *high = low + r.pairs / 2 * kLine;
      const U32x16 a = load_u32(low), b = load_u32(high);
      F32x16 x0 = even_bf16(a), y0 = even_bf16(b), x1 = odd_bf16(a), y1 = odd_bf16(b);
      turn_pair(x0, y0, turn_of(r, i, t));
      turn_pair(x1, y1, turn_of(r, i + 1, t));
      store_pairs(low, x0, x1);
      store_pairs(high, y0, y1);
    }
  }
}

void from_bf16(const bf16_t* x, std::size_t n, float* out) {
  for (std::size_t i = 0; i < n; i += 16) store(out + i, load_bf16(x + i));
}

void add_product(const float* a, const float* b, std::size_t m, std::size_t k, std::size_t n, float* out) {
  // Blocks of 4 x 32 stay in registers; what is left goes by rows.
  const std::size_t rows = m / 4 * 4, cols = n / 32 * 32;
  for (std::size_t c = 0; c < cols; c += 32)
    for (std::size_t r = 0; r < rows; r += 4) {
      F32x16 sums[4][2];
      SNUG_UNROLL(4)
      for (std::size_t i = 0; i < 4; ++i) {
        sums[i][0] = load(out + (r + i) * n + c);
        sums[i][1] = load(out + (r + i) * n + c + 16);
      }
      for (std::size_t j = 0; j < k; ++j) {
        const F32x16 low = load(b + j * n + c), high = load(b + j * n + c + 16);
        SNUG_UNROLL(4)
        for (std::size_t i = 0; i < 4; ++i) {
          const F32x16 factor = set1(a[(r + i) * k + j]);
          sums[i][0] = fma(factor, low, sums[i][0]);
          sums[i][1] = fma(factor, high, sums[i][1]);
        }
      }
      SNUG_UNROLL(4)
      for (std::size_t i = 0; i < 4; ++i) {
        store(out + (r + i) * n + c, sums[i][0]);
        store(out + (r + i) * n + c + 16, sums[i][1]);
      }
    }
  for (std::size_t r = 0; r < m; ++r)
    for (std::size_t c = r < rows ? cols : 0; c < n; c += 16) {
      const std::size_t lanes = n - c < 16 ? n - c : 16;
      F32x16 sum = load_n(out + r * n + c, lanes);
      for (std::size_t j = 0; j < k; ++j) sum = fma(set1(a[r * k + j]), load_n(b + j * n + c, lanes), sum);
      store_n(out + r * n + c, lanes, sum);
    }
}

}  // namespace snug::SNUG_ISA_NS
