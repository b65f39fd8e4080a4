// The fit finds a map of low rank again, and else the best there is.

#include "measure/low_rank.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "support/random_values.hpp"

namespace snug {
namespace {

constexpr std::size_t kCols = 48, kRows = 80, kSamples = 400;

using testing_support::random_values;

/// [rows][cols] of rank `rank`.
std::vector<float> planted(std::size_t rank) {
  const std::vector<float> left = random_values(kRows * rank, 1), right = random_values(rank * kCols, 2);
  std::vector<float> matrix(kRows * kCols);
  for (std::size_t i = 0; i < kRows; ++i)
    for (std::size_t k = 0; k < rank; ++k)
      for (std::size_t j = 0; j < kCols; ++j) matrix[i * kCols + j] += left[i * rank + k] * right[k * kCols + j];
  return matrix;
}

/// Inputs whose channels differ in size by three orders of magnitude, as activations do.
std::vector<float> inputs() {
  std::vector<float> x = random_values(kSamples * kCols, 3);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0f, static_cast<float>(i % kCols) / kCols * 3 - 1.5f);
  return x;
}

std::vector<float> moments_of(const std::vector<float>& x) {
  std::vector<float> sums(kCols * kCols);
  add_moments(x.data(), kSamples, kCols, 0, kCols, sums.data());
  for (float& v : sums) v /= kSamples;
  return sums;
}

/// Mean squared error of row r over the inputs, and its mean square.
std::pair<double, double> error_of(const LowRankMap& map, const std::vector<float>& matrix, const std::vector<float>& x,
                                   std::size_t rank, std::size_t r) {
  double error = 0, square = 0;
  for (std::size_t s = 0; s < kSamples; ++s) {
    double want = 0, got = 0;
    for (std::size_t j = 0; j < kCols; ++j) want += matrix[r * kCols + j] * x[s * kCols + j];
    for (std::size_t k = 0; k < rank; ++k) {
      double z = 0;
      for (std::size_t j = 0; j < kCols; ++j) z += map.inputs[k * kCols + j] * x[s * kCols + j];
      got += map.outputs[r * rank + k] * z;
    }
    error += (want - got) * (want - got);
    square += want * want;
  }
  return {error / kSamples, square / kSamples};
}

TEST(LowRank, MomentsAreThoseOfTheRows) {
  const std::vector<float> x = inputs(), moments = moments_of(x);
  for (std::size_t i = 0; i < kCols; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double want = 0;
      for (std::size_t s = 0; s < kSamples; ++s) want += x[s * kCols + i] * x[s * kCols + j] / kSamples;
      EXPECT_NEAR(moments[i * kCols + j], want, 1e-4 * std::sqrt(moments[i * kCols + i] * moments[j * kCols + j]));
    }
}

TEST(LowRank, FindsAPlantedMapAgain) {
  const std::vector<float> matrix = planted(6), x = inputs();
  const LowRankMap map = fit_low_rank(matrix, kCols, 6, moments_of(x), 1e-9);
  EXPECT_GT(map.explained, 0.9999);
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto [error, square] = error_of(map, matrix, x, 6, r);
    EXPECT_LT(error, 1e-4 * square) << r;
    EXPECT_LT(map.spread[r] * map.spread[r], 1e-3 * square) << r;
  }
}

TEST(LowRank, KnowsWhatItLeavesOut) {
  const std::vector<float> matrix = planted(12), x = inputs();
  const LowRankMap map = fit_low_rank(matrix, kCols, 4, moments_of(x), 1e-9);
  double error = 0, square = 0;
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto [e, s] = error_of(map, matrix, x, 4, r);
    EXPECT_NEAR(map.spread[r] * map.spread[r], e, 1e-3 * s) << r;
    error += e;
    square += s;
  }
  EXPECT_NEAR(map.explained, 1 - error / square, 1e-3);
  EXPECT_LT(map.explained, 0.9999);
}

}  // namespace
}  // namespace snug
