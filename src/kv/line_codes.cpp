#include "kv/line_codes.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace snug {

namespace {

constexpr int kIterations = 6;

/// Codes of a line for a scale.
class Line {
public:
  Line(const float* x, std::size_t bits) : x_(x), levels_(static_cast<float>((1u << bits) - 1)) {}

  float code(std::size_t t, float scale) const {
    return std::clamp(std::floor(x_[t] / scale + 0.5f * levels_ + 0.5f), 0.0f, levels_);
  }
  float error(float scale) const {
    float sum = 0;
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      const float off = x_[t] - (code(t, scale) - 0.5f * levels_) * scale;
      sum += off * off;
    }
    return sum;
  }
  float refined(float scale) const {
    float dot = 0, square = 0;
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      const float level = code(t, scale) - 0.5f * levels_;
      dot += x_[t] * level;
      square += level * level;
    }
    return dot / square;  // levels are never 0
  }
  float best_scale() const {
    float most = 0;
    for (std::size_t t = 0; t < kPageTokens; ++t) most = std::max(most, std::fabs(x_[t]));
    if (most < std::numeric_limits<float>::min()) return 0;
    float best = 0, least = std::numeric_limits<float>::max();
    // From clipping nothing to clipping much: each leads to a best scale nearby.
    for (float scale = 2 * most / levels_; scale > 0.5f * most / levels_; scale *= 0.7f) {
      float refining = scale;
      for (int i = 0; i < kIterations; ++i) refining = refined(refining);
      if (const float e = error(refining); e < least) best = refining, least = e;
    }
    return best;
  }

private:
  const float* x_;
  float levels_;
};

}  // namespace

void predict_lines(const float* weights, const float* bias, std::size_t inputs, std::size_t outputs, const float* in,
                   float* out) {
  for (std::size_t o = 0; o < outputs; ++o) std::fill_n(out + o * kPageTokens, kPageTokens, bias[o]);
  kernels().add_product(weights, in, outputs, inputs, kPageTokens, out);
}

void pack_lines(const float* lines, std::size_t count, std::size_t bits, std::byte* out) {
  const std::size_t per_unit = 8 / bits;
  for (std::size_t l = 0; l < count; ++l, lines += kPageTokens, out += line_code_bytes(bits)) {
    const Line line(lines, bits);
    const float wanted = line.best_scale();
    bf16_t head;
    kernels().to_bf16(&wanted, 1, &head);
    std::memcpy(out, &head, sizeof head);
    const float scale = float_of(head);
    auto* units = reinterpret_cast<std::uint8_t*>(out + sizeof head);
    std::memset(units, 0, 8 * bits);
    for (std::size_t t = 0; t < kPageTokens && scale > 0; ++t) {
      const auto code = static_cast<std::uint32_t>(line.code(t, scale));
      units[t / 16 / per_unit * 16 + t % 16] |= static_cast<std::uint8_t>(code << (t / 16 % per_unit * bits));
    }
  }
}

}  // namespace snug
