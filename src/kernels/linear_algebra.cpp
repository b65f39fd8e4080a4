#include "kernels/linear_algebra.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/kernels.hpp"

namespace snug {

void orthonormalise(std::span<float> rows, std::size_t n, int passes) {
  for (int pass = 0; pass < passes; ++pass)
    for (std::size_t i = 0; i < rows.size(); i += n) {
      for (std::size_t j = 0; j < i; j += n)
        kernels().axpy(&rows[i], -kernels().dot(&rows[i], &rows[j], n), &rows[j], n);
      const float length = std::sqrt(kernels().dot(&rows[i], &rows[i], n));
      kernels().scale(&rows[i], length > 1e-20f ? 1 / length : 0.0f, n);
    }
}

void factorise(std::vector<double>& matrix, std::size_t n, double least) {
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double rest = matrix[i * n + j];
      for (std::size_t k = 0; k < j; ++k) rest -= matrix[i * n + k] * matrix[j * n + k];
      matrix[i * n + j] = i == j ? std::sqrt(std::max(rest, least)) : rest / matrix[j * n + j];
    }
}

}  // namespace snug
