#pragma once
/// Which of some weights are the largest.

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

namespace snug {

/// Indices of `weights`, from the largest down; of equal ones the first comes first.
inline std::vector<std::size_t> heaviest_first(std::span<const float> weights) {
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  return order;
}

}  // namespace snug
