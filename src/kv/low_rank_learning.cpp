// The subspaces of low-rank channels: principal components of a text's keys and values, in the metric in which errors
// count.

#include <cmath>
#include <mutex>
#include <random>

#include "kv/low_rank_codec.hpp"
#include "kv/query_weights.hpp"

namespace snug {

namespace {

constexpr int kIterations = 40;
constexpr double kRidge = 1e-3;  // of the metric's mean diagonal

using Matrix = std::vector<float>;  // square, row by row

/// Lower L with L L^T = m + ridge.
Matrix factor(const Matrix& m, std::size_t n) {
  double trace = 0;
  for (std::size_t i = 0; i < n; ++i) trace += m[i * n + i];
  const double ridge = kRidge * trace / static_cast<double>(n) + 1e-20;
  std::vector<double> l(n * n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double rest = m[i * n + j] + (i == j ? ridge : 0);
      for (std::size_t k = 0; k < j; ++k) rest -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = i == j ? std::sqrt(std::max(rest, ridge * 1e-3)) : rest / l[j * n + j];
    }
  return {l.begin(), l.end()};
}

/// Makes rows of length n orthonormal; twice, because once leaves errors where they were nearly dependent.
void orthonormalise(Matrix& rows, std::size_t n) {
  for (int pass = 0; pass < 2; ++pass)
    for (std::size_t i = 0; i < rows.size(); i += n) {
      for (std::size_t j = 0; j < i; j += n)
        kernels().axpy(&rows[i], -kernels().dot(&rows[i], &rows[j], n), &rows[j], n);
      const float length = std::sqrt(kernels().dot(&rows[i], &rows[i], n));
      kernels().scale(&rows[i], length > 1e-20f ? 1 / length : 0.0f, n);
    }
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
  std::vector<double> sums(c);
  for (std::size_t i = 0; i < samples.size(); ++i) sums[i % c] += float_of(samples[i]);
  for (const double sum : sums) s.mean.push_back(static_cast<float>(sum / static_cast<double>(tokens)));
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
  const auto& shapes = from.model.shapes;
  std::vector<Subspace> found(2 * shapes.size());
  std::mutex mutex;
  std::size_t done = 0;
  from.pool.parallel_for(found.size(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t job = begin; job < end; ++job) {
      const std::size_t layer = job / 2;
      const KvShape& shape = shapes[layer];
      const KvSamples::Layer& samples = from.samples.layers[layer];
      if (shape.kv_heads > 0 && job % 2 != 0)
        found[job] = find_subspace(samples.values, shape.kv_heads * shape.v_dim, {});
      if (shape.kv_heads > 0 && job % 2 == 0) {
        std::vector<Matrix> metric;
        for (std::size_t head = 0; head < shape.kv_heads; ++head)
          metric.push_back(factor(query_moments(from, layer, head), shape.k_dim));
        found[job] = find_subspace(samples.keys, shape.kv_heads * shape.k_dim, metric);
      }
      const std::lock_guard lock(mutex);
      from.report(++done, found.size());
    }
  });
  KvTables tables;
  for (std::size_t job = 0; job < found.size(); ++job) {
    if (found[job].mean.empty()) continue;
    const std::string name = job % 2 ? "value" : "key";
    tables.add(job / 2, name + ".mean", std::move(found[job].mean));
    tables.add(job / 2, name + ".down", std::move(found[job].down));
    tables.add(job / 2, name + ".up", std::move(found[job].up));
  }
  return tables;
}

}  // namespace snug
