// Activations to int8 (kernels/q8_rows.hpp).

#include <algorithm>

#include "kernels/kernels.hpp"
#include "kernels/simd/f32.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

void quantize(const float* x, std::size_t n, const Q8Rows& out, std::size_t row, std::size_t k_begin) {
  std::int8_t* q = out.q(row) + k_begin;
  float* scale = out.scale(row) + k_begin / 32;
  float* scaled_sum = out.scaled_sum(row) + k_begin / 32;
  std::int32_t* negative_sum = out.negative_sum(row) + k_begin / 16;
  for (std::size_t k = 0; k < n; k += 32, x += 32, q += 32, negative_sum += 2) {
    const F32x16 a = load(x), b = load(x + 16);
    const float top = hmax(snug::SNUG_ISA_NS::max(abs(a), abs(b)));
    const float inverse = top > 0 ? 127.0f / top : 0.0f;
    alignas(64) std::int32_t rounded[32];
    store_i32(rounded, to_i32(mul(a, set1(inverse))));
    store_i32(rounded + 16, to_i32(mul(b, set1(inverse))));
    std::int32_t sums[2] = {0, 0};
    for (std::size_t i = 0; i < 32; ++i) {
      q[i] = static_cast<std::int8_t>(rounded[i]);
      sums[i / 16] += rounded[i];
    }
    *scale = top / 127.0f;
    *scaled_sum++ = *scale * static_cast<float>(sums[0] + sums[1]);
    ++scale;
    negative_sum[0] = -sums[0];
    negative_sum[1] = -sums[1];
  }
}

}  // namespace snug::SNUG_ISA_NS
