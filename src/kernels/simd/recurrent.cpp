/// Steps of gated delta rule layers (arXiv 2412.06464): lanes are value dimensions, so that nothing is summed across.

#include <cmath>

#include "kernels/simd/f32.hpp"
#include "kernels/simd/f32_math.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

void causal_conv(const float* const* inputs, const float* weights, std::size_t taps, std::size_t n, float* out) {
  for (std::size_t i = 0; i < n; i += 16) {
    F32x16 sum = zero();
    for (std::size_t t = 0; t < taps; ++t) sum = fma(load(inputs[t] + i), load(weights + t * n + i), sum);
    store(out + i, sum);
  }
  silu(out, n);
}

void delta_rule(const float* from, float* to, const DeltaStep& step, float* out) {
  const F32x16 decay = set1(step.decay), beta = set1(step.beta);
  for (std::size_t j = 0; j < step.v_dim; j += 16) {
    const float* s = from + j * step.k_dim;
    float* t = to + j * step.k_dim;
    F32x16 known = zero();
    for (std::size_t i = 0; i < step.k_dim; ++i) known = fma(mul(load(s + i * 16), decay), set1(step.key[i]), known);
    const F32x16 change = mul(sub(load(step.value + j), known), beta);
    F32x16 sum = zero();
    for (std::size_t i = 0; i < step.k_dim; ++i) {
      const F32x16 next = fma(set1(step.key[i]), change, mul(load(s + i * 16), decay));
      store(t + i * 16, next);
      sum = fma(next, set1(step.query[i]), sum);
    }
    store(out + j, sum);
  }
}

}  // namespace snug::SNUG_ISA_NS
