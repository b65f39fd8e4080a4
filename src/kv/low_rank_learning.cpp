// The subspaces of low-rank channels: principal components of a text's keys and values, in the metric in which errors
// count.

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/linear_algebra.hpp"
#include "kv/low_rank_codec.hpp"
#include "kv/query_weights.hpp"

namespace snug {

namespace {

constexpr int kIterations = 40;
constexpr double kRidge = 1e-3;  // of the metric's mean diagonal

using Matrix = std::vector<float>;  // square, row by row

/// Lower L with L L^T = m + ridge; what lies above its diagonal is not used.
Matrix factor(const Matrix& m, std::size_t n) {
  double trace = 0;
  for (std::size_t i = 0; i < n; ++i) trace += m[i * n + i];
  const double ridge = kRidge * trace / static_cast<double>(n) + 1e-20;
  std::vector<double> l(m.begin(), m.end());
  for (std::size_t i = 0; i < n; ++i) l[i * n + i] += ridge;
  factorise(l, n, ridge * 1e-3);
  return {l.begin(), l.end()};
}

/// Orthonormal rows [rank][n] that span the leading eigenvectors.
Matrix leading_space(const Matrix& symmetric, std::size_t n, std::size_t rank) {
  Matrix space(rank * n), product(rank * n);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& v : space) v = normal(random);
  orthonormalise(space, n);
  for (int i = 0; i < kIterations; ++i) {
    std::fill(product.begin(), product.end(), 0.0f);
    kernels().add_product(space.data(), symmetric.data(), rank, n, n, product.data());
    space.swap(product);
    orthonormalise(space, n);
  }
  return space;
}

struct Subspace {
  Matrix mean, down, up;
};

/// `metric`: each head's L; empty: errors count alike.
Subspace find_subspace(std::span<const bf16_t> samples, std::size_t channels, const std::vector<Matrix>& metric) {
  const std::size_t c = channels, tokens = samples.size() / c, rank = low_rank(c);
  const std::size_t dim = metric.empty() ? c : c / metric.size();
  Subspace s;
  s.mean = channel_means(samples, c);
  // Moments of y = L^T (x - mean).
  Matrix moments(c * c), x(c), y(c);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 0; i < c; ++i) x[i] = float_of(samples[t * c + i]) - s.mean[i];
    if (!metric.empty()) {
      std::fill(y.begin(), y.end(), 0.0f);
      for (std::size_t i = 0; i < c; ++i)
        kernels().axpy(&y[i / dim * dim], x[i], &metric[i / dim][i % dim * dim], i % dim + 1);
      x.swap(y);
    }
    for (std::size_t i = 0; i < c; ++i) kernels().axpy(&moments[i * c], x[i], x.data(), c);
  }
  kernels().scale(moments.data(), 1 / static_cast<float>(tokens), moments.size());
  const Matrix space = leading_space(moments, c, rank);
  if (metric.empty()) {
    s.down = space;
    s.up.resize(c * rank);
    for (std::size_t r = 0; r < rank; ++r)
      for (std::size_t i = 0; i < c; ++i) s.up[i * rank + r] = space[r * c + i];
    return s;
  }
  // down = U^T L^T, up = L^-T U.
  s.down.resize(rank * c);
  s.up.resize(c * rank);
  for (std::size_t r = 0; r < rank; ++r)
    for (std::size_t head = 0; head < metric.size(); ++head) {
      const Matrix& l = metric[head];
      const float* u = &space[r * c + head * dim];
      for (std::size_t i = 0; i < dim; ++i) s.down[r * c + head * dim + i] = kernels().dot(&l[i * dim], u, i + 1);
      std::vector<double> left(u, u + dim);
      for (std::size_t i = dim; i-- > 0;) {
        const double value = left[i] / l[i * dim + i];
        s.up[(head * dim + i) * rank + r] = static_cast<float>(value);
        for (std::size_t j = 0; j < i; ++j) left[j] -= value * l[i * dim + j];
      }
    }
  return s;
}

}  // namespace

KvTables learn_low_rank(const KvLearning& from) {
  return learn_sides(from, [&](std::size_t layer, KvSide side) -> KvArrays {
    const KvShape& shape = from.model.shapes[layer];
    std::vector<Matrix> metric;
    for (std::size_t head = 0; side == KvSide::keys && head < shape.kv_heads; ++head)
      metric.push_back(factor(query_moments(from, layer, head), shape.k_dim));
    Subspace s = find_subspace(from.samples.layers[layer].of(side), shape.kv_heads * shape.dim(side), metric);
    return {{".mean", std::move(s.mean)}, {".down", std::move(s.down)}, {".up", std::move(s.up)}};
  });
}

}  // namespace snug
