#include "kv/line_codes.hpp"

#include <algorithm>
#include <cstring>

namespace snug {

void predict_lines(const float* weights, const float* bias, std::size_t inputs, std::size_t outputs, const float* in,
                   float* out) {
  for (std::size_t o = 0; o < outputs; ++o) std::fill_n(out + o * kPageTokens, kPageTokens, bias[o]);
  kernels().add_product(weights, in, outputs, inputs, kPageTokens, out);
}

void pack_lines(const float* lines, std::size_t count, std::size_t bits, std::byte* out) {
  const std::size_t per_unit = 8 / bits;
  const float levels = static_cast<float>((1u << bits) - 1);
  for (std::size_t l = 0; l < count; ++l, lines += kPageTokens, out += line_code_bytes(bits)) {
    const float wanted = kernels().line_scale(lines, bits);
    bf16_t head;
    kernels().to_bf16(&wanted, 1, &head);
    std::memcpy(out, &head, sizeof head);
    const float inverse = 1 / float_of(head);
    auto* units = reinterpret_cast<std::uint8_t*>(out + sizeof head);
    std::memset(units, 0, 8 * bits);
    for (std::size_t t = 0; t < kPageTokens && wanted > 0; ++t) {
      const auto code = static_cast<std::uint32_t>(std::clamp(lines[t] * inverse + 0.5f * (levels + 1), 0.0f, levels));
      units[t / 16 / per_unit * 16 + t % 16] |= static_cast<std::uint8_t>(code << (t / 16 % per_unit * bits));
    }
  }
}

}  // namespace snug
