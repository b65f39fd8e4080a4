// What is left of predicted lines, in integers (layout: kernels/kv_predict.hpp).

#include "kernels/kv_predict.hpp"

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {
constexpr std::size_t kTokens = 64, kVectors = kTokens / 16;
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
