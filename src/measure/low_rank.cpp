// With S = L L^T the inputs' moments and V the `rank` leading eigenvectors of L^T W^T W L, the map is
// outputs = W L V, inputs = V^T L^-1. V is found by subspace iteration; only the space that it spans matters.

#include "measure/low_rank.hpp"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.hpp"
#include "kernels/kernels.hpp"
#include "kernels/linear_algebra.hpp"

namespace snug {

namespace {

constexpr std::size_t kBlock = 64;  // rows that stay in the cache while a matrix passes by
constexpr int kIterations = 24;

/// A square matrix of which the lower half is used: row i has i + 1 values.
class Lower {
public:
  explicit Lower(std::size_t n) : n_(n), values_(n * n) {}
  float* row(std::size_t i) { return values_.data() + i * n_; }
  const float* row(std::size_t i) const { return values_.data() + i * n_; }
  std::size_t size() const { return n_; }

private:
  std::size_t n_;
  std::vector<float> values_;
};

/// Cholesky's factor. In double: moments of activations span many orders of magnitude.
Lower factor(std::span<const float> moments, std::size_t n, double ridge) {
  double trace = 0;
  for (std::size_t i = 0; i < n; ++i) trace += moments[i * n + i];
  const double added = ridge * trace / static_cast<double>(n) + 1e-30;
  std::vector<double> l(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    double* row = l.data() + i * n;
    for (std::size_t j = 0; j <= i; ++j) {
      const double* other = l.data() + j * n;
      double sums[4] = {};
      std::size_t k = 0;
      for (; k + 4 <= j; k += 4)
        for (std::size_t s = 0; s < 4; ++s) sums[s] += row[k + s] * other[k + s];
      for (; k < j; ++k) sums[0] += row[k] * other[k];
      const double rest = moments[i * n + j] - (sums[0] + sums[1] + sums[2] + sums[3]);
      if (j < i)
        row[j] = rest / other[j];
      else if (const double square = rest + added; square > 0)
        row[i] = std::sqrt(square);
      else
        fail("the activations cannot be factorised: use more text");
    }
  }
  Lower result(n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j) result.row(i)[j] = static_cast<float>(l[i * n + j]);
  return result;
}

/// out = L v
void times(const Lower& l, const float* v, float* out) {
  for (std::size_t i = 0; i < l.size(); ++i) out[i] = kernels().dot(l.row(i), v, i + 1);
}
/// out = L^T v
void times_transposed(const Lower& l, const float* v, float* out) {
  std::fill_n(out, l.size(), 0.0f);
  for (std::size_t i = 0; i < l.size(); ++i) kernels().axpy(out, v[i], l.row(i), i + 1);
}
/// Solves L^T x = v; v is used up.
void solve_transposed(const Lower& l, float* v, float* x) {
  for (std::size_t i = l.size(); i-- > 0;) {
    x[i] = v[i] / l.row(i)[i];
    kernels().axpy(v, -x[i], l.row(i), i);
  }
}

/// W^T W as a whole matrix.
std::vector<float> gram(std::span<const float> matrix, std::size_t cols) {
  std::vector<float> sums(cols * cols);
  add_moments(matrix.data(), matrix.size() / cols, cols, 0, cols, sums.data());
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < i; ++j) sums[j * cols + i] = sums[i * cols + j];
  return sums;
}

/// Orthonormal rows [rank][cols] that span the leading eigenvectors of L^T W^T W L.
std::vector<float> leading_space(const Lower& l, const std::vector<float>& gram, std::size_t rank) {
  const std::size_t n = l.size();
  std::vector<float> space(rank * n), image(n), product(n);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& v : space) v = normal(random);
  orthonormalise(space, n);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    for (std::size_t k = 0; k < rank; ++k) {
      times(l, &space[k * n], image.data());
      for (std::size_t i = 0; i < n; ++i) product[i] = kernels().dot(&gram[i * n], image.data(), n);
      times_transposed(l, product.data(), &space[k * n]);
    }
    orthonormalise(space, n);
  }
  return space;
}

/// Second moments of the rows of W x.
std::vector<double> output_moments(const Lower& l, std::span<const float> matrix) {
  const std::size_t n = l.size(), rows = matrix.size() / n;
  std::vector<double> result(rows);
  std::vector<float> images(kBlock * n);
  for (std::size_t begin = 0; begin < rows; begin += kBlock) {
    const std::size_t count = std::min(kBlock, rows - begin);
    std::fill(images.begin(), images.end(), 0.0f);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t r = 0; r < count; ++r)
        kernels().axpy(&images[r * n], matrix[(begin + r) * n + i], l.row(i), i + 1);
    for (std::size_t r = 0; r < count; ++r) result[begin + r] = kernels().dot(&images[r * n], &images[r * n], n);
  }
  return result;
}

}  // namespace

void add_moments(const float* x, std::size_t rows, std::size_t cols, std::size_t begin, std::size_t end, float* sums) {
  for (std::size_t block = 0; block < rows; block += kBlock) {
    const std::size_t last = std::min(rows, block + kBlock);
    for (std::size_t i = begin; i < end; ++i)
      for (std::size_t r = block; r < last; ++r) kernels().axpy(sums + i * cols, x[r * cols + i], x + r * cols, i + 1);
  }
}

LowRankMap fit_low_rank(std::span<const float> matrix, std::size_t cols, std::size_t rank,
                        std::span<const float> moments, double ridge) {
  const std::size_t rows = matrix.size() / cols;
  const Lower l = factor(moments, cols, ridge);
  std::vector<float> space = leading_space(l, gram(matrix, cols), rank);
  LowRankMap map{std::vector<float>(rank * cols), std::vector<float>(rows * rank), std::vector<float>(rows), 0};
  std::vector<float> images(rank * cols);
  for (std::size_t k = 0; k < rank; ++k) {
    times(l, &space[k * cols], &images[k * cols]);
    solve_transposed(l, &space[k * cols], &map.inputs[k * cols]);
  }
  const std::vector<double> all = output_moments(l, matrix);
  double sum = 0, left = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    float* out = &map.outputs[i * rank];
    for (std::size_t k = 0; k < rank; ++k) out[k] = kernels().dot(&matrix[i * cols], &images[k * cols], cols);
    const double rest = std::max(0.0, all[i] - kernels().dot(out, out, rank));
    map.spread[i] = static_cast<float>(std::sqrt(rest));
    sum += all[i];
    left += rest;
  }
  map.explained = sum > 0 ? 1 - left / sum : 1;
  return map;
}

}  // namespace snug
