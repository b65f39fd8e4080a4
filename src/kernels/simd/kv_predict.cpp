// A page's lines predicted from others by a linear map, and what is left of them in integers (layout:
// kernels/kv_predict.hpp).

#include "kernels/kv_predict.hpp"

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {
constexpr std::size_t kTokens = 64, kVectors = kTokens / 16, kBlock = 4;
}

void predict_lines(const float* weights, const float* bias, std::size_t inputs, std::size_t outputs, const float* in,
                   float* out) {
  for (std::size_t o = 0; o < outputs; o += kBlock, out += kBlock * kTokens, weights += kBlock * inputs) {
    F32x16 sum[kBlock][kVectors];
    SNUG_UNROLL(4)
    for (std::size_t j = 0; j < kBlock; ++j)
      for (std::size_t v = 0; v < kVectors; ++v) sum[j][v] = set1(bias[o + j]);
    for (std::size_t i = 0; i < inputs; ++i) {
      F32x16 x[kVectors];
      SNUG_UNROLL(4)
      for (std::size_t v = 0; v < kVectors; ++v) x[v] = load(in + i * kTokens + v * 16);
      SNUG_UNROLL(4)
      for (std::size_t j = 0; j < kBlock; ++j) {
        const F32x16 w = set1(weights[j * inputs + i]);
        SNUG_UNROLL(4)
        for (std::size_t v = 0; v < kVectors; ++v) sum[j][v] = fma(w, x[v], sum[j][v]);
      }
    }
    SNUG_UNROLL(4)
    for (std::size_t j = 0; j < kBlock; ++j)
      for (std::size_t v = 0; v < kVectors; ++v) store(out + j * kTokens + v * 16, sum[j][v]);
  }
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
