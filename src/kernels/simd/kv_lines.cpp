// Pages of keys and values between bf16 tiles and f32 lines, and the rotation of keys (layout: kernels/kv_lines.hpp).

#include "kernels/kv_lines.hpp"

#include "kernels/kv_tile.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

constexpr std::size_t kTokens = 64;

/// Lanes of `even` and `odd` in turn, as bf16.
SNUG_INLINE void store_pairs(bf16_t* p, F32x16 even, F32x16 odd) {
  bf16_t lanes[32];
  store_bf16(lanes, even);
  store_bf16(lanes + 16, odd);
  const U32x16 zipped = widen(load_vector<U16x16>(lanes)) | widen(load_vector<U16x16>(lanes + 16)) << splat(16);
  __builtin_memcpy(p, &zipped, sizeof zipped);
}

}  // namespace

void tiles_to_lines(const bf16_t* tiles, const KvLines& l, float* lines) {
  for (std::size_t p = 0; p < l.pairs; ++p)
    for (std::size_t v = 0; v < l.vectors; ++v) {
      const U32x16 pairs = load_u32(tiles + p * l.pair_stride + v * l.vector_stride);
      float* even = lines + 2 * p * l.length() + v * 16;
      store(even, as_f32(pairs << splat(16)));
      store(even + l.length(), as_f32(pairs & splat(0xffff0000u)));
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
    const float factor = back ? r.inverse_square : 1;
    const F32x16 cos = set1(r.cos[i] * factor), sin = set1(r.sin[i] * factor);
    for (std::size_t t = 0; t < kTokens; t += 16) {
      const F32x16 oc = load(r.offset_cos + i * kTokens + t), os = load(r.offset_sin + i * kTokens + t);
      const F32x16 c = sub(mul(cos, oc), mul(sin, os));
      F32x16 s = add(mul(sin, oc), mul(cos, os));
      if (back) s = sub(zero(), s);
      const F32x16 x = load(a + t), y = load(b + t);
      store(a + t, sub(mul(x, c), mul(y, s)));
      store(b + t, add(mul(x, s), mul(y, c)));
    }
  }
}

}  // namespace snug::SNUG_ISA_NS
