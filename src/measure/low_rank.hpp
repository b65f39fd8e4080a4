#pragma once
/// The map of a given rank that stands in for a matrix with the least squared error over the inputs it meets
/// (reduced-rank ridge regression, in closed form: the regression of y = W x on x is W itself, so what is left is the
/// best subspace of outputs).

#include <cstddef>
#include <span>
#include <vector>

namespace snug {

struct LowRankMap {
  std::vector<float> inputs;   ///< [rank][cols]
  std::vector<float> outputs;  ///< [rows][rank]: W x is about outputs (inputs x)
  std::vector<float> spread;   ///< [rows]: standard deviation of what is left
  double explained = 0;        ///< share of the outputs' second moment
};

/// `matrix`: [rows][cols]. `moments`: [cols][cols], the mean of x x^T, of which the lower half is read; `ridge` of its
/// mean diagonal is added. REQUIRES: rank <= cols.
LowRankMap fit_low_rank(std::span<const float> matrix, std::size_t cols, std::size_t rank,
                        std::span<const float> moments, double ridge);

/// sums[i][0..i] += sum over the rows of x[rows][cols] of x_i x_j, for i in [begin, end): the lower half of x^T x.
void add_moments(const float* x, std::size_t rows, std::size_t cols, std::size_t begin, std::size_t end, float* sums);

}  // namespace snug
