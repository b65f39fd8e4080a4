/// Vector functions over f32[n]. Reductions add in one fixed order, independent of alignment: value i goes to lane i %
/// 64 of four vectors, which are folded at the end.

#include <cmath>
#include <type_traits>

#include "kernels/simd/f32.hpp"

namespace snug::SNUG_ISA_NS {
namespace {

SNUG_INLINE F32x16 load_lanes(const float* p, std::size_t lanes, F32x16 fill = zero()) {
  return lanes == 16 ? load(p) : load_n(p, lanes, fill);
}
SNUG_INLINE void store_lanes(float* p, std::size_t lanes, F32x16 a) {
  if (lanes == 16) {
    store(p, a);
  } else {
    store_n(p, lanes, a);
  }
}

/// step(i, lanes) for every vector of 16 and the rest.
template <typename Step>
SNUG_INLINE void for_vectors(std::size_t n, Step&& step) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) step(i, std::size_t{16});
  if (i < n) step(i, n - i);
}

/// x[i] = f(x[i])
template <typename Function>
SNUG_INLINE void apply(float* x, std::size_t n, Function&& f) {
  for_vectors(n, [&](std::size_t i, std::size_t lanes) { store_lanes(x + i, lanes, f(load_lanes(x + i, lanes))); });
}
/// out[i] = f(x[i], y[i])
template <typename Function>
SNUG_INLINE void apply2(const float* x, const float* y, std::size_t n, float* out, Function&& f) {
  for_vectors(n, [&](std::size_t i, std::size_t lanes) {
    store_lanes(out + i, lanes, f(load_lanes(x + i, lanes), load_lanes(y + i, lanes)));
  });
}

/// Sum over i of what term(sum, i, lanes) adds; lanes past n must add 0.
template <typename Term>
SNUG_INLINE float reduce_sum(std::size_t n, Term&& term) {
  F32x16 s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  std::size_t i = 0;
  constexpr std::size_t kAll = 16;
  for (; i + 64 <= n; i += 64) {
    s0 = term(s0, i, kAll);
    s1 = term(s1, i + 16, kAll);
    s2 = term(s2, i + 32, kAll);
    s3 = term(s3, i + 48, kAll);
  }
  F32x16* rest[] = {&s0, &s1, &s2, &s3};
  for (std::size_t r = 0; i < n; i += 16, ++r) *rest[r] = term(*rest[r], i, n - i < 16 ? n - i : 16);
  return hsum(add(add(s0, s2), add(s1, s3)));
}

/// x[i] = e^(x[i] - shift) if `write`; returns the sum of all.
template <bool write>
SNUG_INLINE float sum_exp(std::conditional_t<write, float, const float>* x, std::size_t n, float shift) {
  return reduce_sum(n, [&](F32x16 sum, std::size_t i, std::size_t lanes) {
    const F32x16 e = exp(sub(load_lanes(x + i, lanes, set1(-kInfinity)), set1(shift)));
    if constexpr (write) store_lanes(x + i, lanes, e);
    return add(sum, e);
  });
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* out) {
  const float squares = reduce_sum(n, [&](F32x16 sum, std::size_t i, std::size_t lanes) {
    const F32x16 v = load_lanes(x + i, lanes);
    return fma(v, v, sum);
  });
  const F32x16 factor = set1(1.0f / std::sqrt(squares / static_cast<float>(n) + eps));
  if (weight == nullptr) {
    apply2(x, x, n, out, [&](F32x16 v, F32x16) { return mul(v, factor); });
  } else {
    apply2(x, weight, n, out, [&](F32x16 v, F32x16 w) { return mul(mul(v, factor), w); });
  }
}

void add(float* x, const float* y, std::size_t n) {
  apply2(x, y, n, x, [](F32x16 a, F32x16 b) { return add(a, b); });
}

void scale(float* x, float factor, std::size_t n) {
  apply(x, n, [f = set1(factor)](F32x16 v) { return mul(v, f); });
}

void multiply(float* x, const float* y, std::size_t n) {
  apply2(x, y, n, x, [](F32x16 a, F32x16 b) { return mul(a, b); });
}

void axpy(float* x, float a, const float* y, std::size_t n) {
  apply2(x, y, n, x, [f = set1(a)](F32x16 u, F32x16 v) { return fma(f, v, u); });
}

float dot(const float* x, const float* y, std::size_t n) {
  return reduce_sum(n, [&](F32x16 sum, std::size_t i, std::size_t lanes) {
    return fma(load_lanes(x + i, lanes), load_lanes(y + i, lanes), sum);
  });
}

void silu(float* x, std::size_t n) {
  apply(x, n, [](F32x16 v) { return mul(v, sigmoid(v)); });
}

void sigmoid(float* x, std::size_t n) {
  apply(x, n, [](F32x16 v) { return sigmoid(v); });
}

void silu_mul(const float* gate, const float* up, std::size_t n, float* out) {
  apply2(gate, up, n, out, [](F32x16 g, F32x16 u) { return mul(mul(g, sigmoid(g)), u); });
}

void gelu_mul(const float* gate, const float* up, std::size_t n, float* out) {
  apply2(gate, up, n, out, [](F32x16 g, F32x16 u) {
    // (1 + tanh(t)) / 2 = sigmoid(2 t), which stays accurate where tanh(t) is near -1.
    const F32x16 cubic = fma(mul(mul(g, g), g), set1(0.044715f), g);
    return mul(mul(g, sigmoid(mul(cubic, set1(2.0f * 0.797884561f)))), u);
  });
}

void swiglu_oai(const float* gate, const float* up, float alpha, float limit, std::size_t n, float* out) {
  apply2(gate, up, n, out, [&](F32x16 g, F32x16 u) {
    g = min(set1(limit), g);
    u = min(set1(limit), max(set1(-limit), u));
    return mul(mul(g, sigmoid(mul(g, set1(alpha)))), add(u, set1(1.0f)));
  });
}

void softcap(float* x, float cap, std::size_t n) {
  apply(x, n, [cap](F32x16 v) { return mul(set1(cap), tanh(div(v, set1(cap)))); });
}

float max(const float* x, std::size_t n) {
  F32x16 top = set1(-kInfinity);
  for_vectors(n, [&](std::size_t i, std::size_t lanes) { top = max(top, load_lanes(x + i, lanes, set1(-kInfinity))); });
  return hmax(top);
}

void softmax(float* x, std::size_t n) {
  const float top = max(x, n);
  if (top == -kInfinity) {  // nothing to choose from: no probability rather than NaN
    apply(x, n, [](F32x16) { return zero(); });
    return;
  }
  const F32x16 sum = set1(sum_exp<true>(x, n, top));
  apply(x, n, [sum](F32x16 v) { return div(v, sum); });
}

float log_sum_exp(const float* x, std::size_t n) {
  const float top = max(x, n);
  if (top == -kInfinity) return top;
  return top + std::log(sum_exp<false>(x, n, top));
}

void rope(float* x, const float* cos, const float* sin, std::size_t pairs, bool split_half) {
  if (split_half) {
    for_vectors(pairs, [&](std::size_t i, std::size_t lanes) {
      const F32x16 a = load_lanes(x + i, lanes), b = load_lanes(x + pairs + i, lanes);
      const F32x16 c = load_lanes(cos + i, lanes), s = load_lanes(sin + i, lanes);
      store_lanes(x + i, lanes, sub(mul(a, c), mul(b, s)));
      store_lanes(x + pairs + i, lanes, add(mul(a, s), mul(b, c)));
    });
    return;
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = a * sin[i] + b * cos[i];
  }
}

}  // namespace snug::SNUG_ISA_NS
