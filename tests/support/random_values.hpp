#pragma once
/// Normally distributed values, the same for the same seed.

#include <random>
#include <vector>

namespace snug::testing_support {

inline std::vector<float> random_values(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

}  // namespace snug::testing_support
