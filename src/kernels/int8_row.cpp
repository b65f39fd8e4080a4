#include "kernels/int8_row.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace snug {

void quantize_int8_row(const float* x, std::size_t n, std::byte* out) {
  for (std::size_t begin = 0; begin < n; begin += Int8Row::kGroup) {
    const auto value = [&](std::size_t i) { return std::isfinite(x[begin + i]) ? x[begin + i] : 0.0f; };
    float most = 0;
    for (std::size_t i = 0; i < Int8Row::kGroup; ++i) most = std::max(most, std::abs(value(i)));
    // A largest value near the end of f32 would have no scale.
    const float exact = std::min(most, 1e36f) / 127;
    const auto scale = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(exact) + 0xffff) >> 16);
    const float rounded = std::bit_cast<float>(std::uint32_t{scale} << 16);
    for (std::size_t i = 0; i < Int8Row::kGroup; ++i) {
      const float q = rounded > 0 ? std::clamp(std::round(value(i) / rounded), -127.0f, 127.0f) : 0.0f;
      out[begin + i] = static_cast<std::byte>(static_cast<std::int8_t>(q));
    }
    std::memcpy(out + n + begin / Int8Row::kGroup * 2, &scale, 2);
  }
}

}  // namespace snug
