// What is left of predicted lines, in integers (layout: kernels/kv_predict.hpp).

#include "kernels/kv_predict.hpp"

#include <limits>

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

constexpr std::size_t kTokens = 64, kVectors = kTokens / 16;
constexpr int kRefinements = 6;
constexpr float kNothing = 1e-30f;

/// A line in the integers nearest to it for a scale.
struct Fit {
  float scale, error;  ///< the best scale for the same integers, and the squared error of the one asked for
};

SNUG_INLINE Fit fit_line(const F32x16* x, float scale, float levels) {
  const F32x16 inverse = set1(1 / scale), middle = set1(0.5f * levels), most = set1(levels), each = set1(-scale);
  F32x16 dot = zero(), square = zero(), error = zero();
  for (std::size_t v = 0; v < kVectors; ++v) {
    const F32x16 level = sub(min(max(round(fma(x[v], inverse, middle)), zero()), most), middle);
    const F32x16 off = fma(level, each, x[v]);
    dot = fma(level, x[v], dot);
    square = fma(level, level, square);
    error = fma(off, off, error);
  }
  return {hsum(dot) / hsum(square), hsum(error)};  // levels are never 0
}

}  // namespace

float line_scale(const float* line, std::size_t bits) {
  const float levels = static_cast<float>((1u << bits) - 1);
  F32x16 x[kVectors], largest = zero();
  for (std::size_t v = 0; v < kVectors; ++v) largest = max(largest, abs(x[v] = load(line + 16 * v)));
  const float most = hmax(largest);
  if (most < kNothing) return 0;
  float best = 0, least = std::numeric_limits<float>::max();
  // From clipping nothing to clipping much: each leads to a best scale nearby.
  for (float start = 2 * most / levels; start > 0.5f * most / levels; start *= 0.7f) {
    float scale = start;
    for (int i = 0; i < kRefinements; ++i) scale = fit_line(x, scale, levels).scale;
    if (const float error = fit_line(x, scale, levels).error; error < least) best = scale, least = error;
  }
  return best;
}

void add_line_codes(const std::byte* page, std::size_t lines, std::size_t bits, float* out) {
  const std::size_t per_unit = 8 / bits;
  const U32x16 mask = splat((1u << bits) - 1);
  for (std::size_t line = 0; line < lines; ++line, page += line_code_bytes(bits), out += kTokens) {
    bf16_t head;
    __builtin_memcpy(&head, page, sizeof head);
    const std::uint32_t wide = static_cast<std::uint32_t>(head) << 16;
    float step;
    __builtin_memcpy(&step, &wide, sizeof step);
    const F32x16 scale = set1(step), least = set1(-0.5f * step * static_cast<float>((1u << bits) - 1));
    for (std::size_t v = 0; v < kVectors; ++v) {
      const U32x16 unit = widen(load_vector<U8x16>(page + sizeof head + v / per_unit * 16));
      const U32x16 code = unit >> splat(static_cast<std::uint32_t>(v % per_unit * bits)) & mask;
      store(out + v * 16, add(load(out + v * 16), fma(to_f32(code), scale, least)));
    }
  }
}

}  // namespace snug::SNUG_ISA_NS
