#pragma once
/// GEAR (arXiv 2403.05527): 2% outliers kept as they are, the rest as integers between extremes (keys per channel,
/// values per token, over a page), and the best product of rank 2 for the error, by power iteration.

#include "kv/references/integers.hpp"

namespace snug::reference {

class Gear final : public ReferenceCodec {
public:
  Gear(KvSide side, std::shared_ptr<const KvModel> model, int bits)
      : ReferenceCodec(side, std::move(model)), levels_(static_cast<float>((1 << bits) - 1)) {}

protected:
  void reconstruct(KvPlace, PlainPage& page) const override {
    const bool keys = side() == KvSide::keys;
    const std::size_t lines = keys ? page.dim : kPageTokens, n = keys ? kPageTokens : page.dim;
    for (std::size_t head = 0; head < page.heads; ++head) {
      const auto at = [&](std::size_t line, std::size_t i) -> float& {
        return keys ? page.at(head, i, line) : page.at(head, line, i);
      };
      std::vector<std::vector<float>> error(lines, std::vector<float>(n));
      std::vector<std::vector<bool>> outlier(lines);
      for (std::size_t l = 0; l < lines; ++l) {
        std::vector<float> line(n);
        for (std::size_t i = 0; i < n; ++i) line[i] = at(l, i);
        outlier[l] = furthest(line, std::max<std::size_t>(1, (n * 2 + 50) / 100));
        for (std::size_t first = 0; first < n; first += 64) {
          std::vector<float> group;
          for (std::size_t i = first; i < std::min(n, first + 64); ++i)
            if (!outlier[l][i]) group.push_back(line[i]);
          if (!group.empty()) quantise_between_extremes(group, levels_);
          auto next = group.begin();
          for (std::size_t i = first; i < std::min(n, first + 64); ++i) {
            if (outlier[l][i]) continue;
            error[l][i] = line[i] - *next;
            at(l, i) = *next++;
          }
        }
      }
      for (int rank = 0; rank < 2; ++rank) {
        const auto [left, right] = leading_pair(error);
        for (std::size_t l = 0; l < lines; ++l)
          for (std::size_t i = 0; i < n; ++i) {
            const float part = static_cast<float>(left[l] * right[i]);
            error[l][i] -= part;
            if (!outlier[l][i]) at(l, i) += part;
          }
      }
    }
  }

private:
  static std::vector<bool> furthest(const std::vector<float>& line, std::size_t count) {
    double mean = 0;
    for (const float x : line) mean += x;
    mean /= static_cast<double>(line.size());
    std::vector<std::size_t> order(line.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return std::abs(line[a] - mean) > std::abs(line[b] - mean); });
    std::vector<bool> chosen(line.size());
    for (std::size_t k = 0; k < count; ++k) chosen[order[k]] = true;
    return chosen;
  }

  /// (singular value * left vector, right vector) of the largest singular value.
  static std::pair<std::vector<double>, std::vector<double>> leading_pair(const std::vector<std::vector<float>>& m) {
    std::vector<double> left(m.size()), right(m[0].size(), 1);
    for (std::size_t i = 0; i < right.size(); ++i) right[i] = 1 + 0.1 * static_cast<double>(i % 7);
    for (int iteration = 0;; ++iteration) {
      double length = 0;
      for (const double x : right) length += x * x;
      for (double& x : right) x /= std::sqrt(length) + 1e-30;
      for (std::size_t l = 0; l < m.size(); ++l) {
        left[l] = 0;
        for (std::size_t i = 0; i < right.size(); ++i) left[l] += m[l][i] * right[i];
      }
      if (iteration == 8) return {left, right};
      std::fill(right.begin(), right.end(), 0);
      for (std::size_t l = 0; l < m.size(); ++l)
        for (std::size_t i = 0; i < right.size(); ++i) right[i] += m[l][i] * left[l];
    }
  }

  float levels_;
};

template <int kBits>
std::unique_ptr<KvCodec> gear(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<Gear>(side, std::move(model), kBits);
}

}  // namespace snug::reference
