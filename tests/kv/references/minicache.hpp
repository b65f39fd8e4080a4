#pragma once
/// MiniCache (arXiv 2405.14366): from the middle of the model on, two layers of one kind at a time. Per head and token
/// the two vectors become one direction, 0.6 of the way along the arc from the lower layer's to the upper's, times
/// their own lengths; the 5% of a page's tokens (rounded up) whose directions are furthest apart stay as they are.

#include <algorithm>
#include <cmath>

#include "kv/references/layers.hpp"

namespace snug::reference {

class MiniCache final : public LayersReference {
public:
  using LayersReference::LayersReference;

protected:
  void reconstruct_layers(const KvLayerPages&, std::vector<PlainPage>& layers) const override {
    std::vector<bool> merged(layers.size());
    for (std::size_t lower = layers.size() / 2; lower < layers.size(); ++lower)
      for (std::size_t upper = lower + 1; upper < layers.size() && !merged[lower]; ++upper) {
        if (merged[upper] || !(model().shapes[lower] == model().shapes[upper])) continue;
        merged[lower] = merged[upper] = true;
        for (std::size_t head = 0; head < layers[lower].heads; ++head) merge(layers[lower], layers[upper], head);
      }
  }

private:
  static double angle(PlainPage& a, PlainPage& b, std::size_t head, std::size_t token) {
    double dot = 0, aa = 0, bb = 0;
    for (std::size_t d = 0; d < a.dim; ++d) {
      const double x = a.at(head, token, d), y = b.at(head, token, d);
      dot += x * y, aa += x * x, bb += y * y;
    }
    return std::acos(std::clamp(dot / std::sqrt(aa * bb), -1.0, 1.0));
  }

  static void merge(PlainPage& a, PlainPage& b, std::size_t head) {
    std::vector<std::pair<double, std::size_t>> tokens;
    for (std::size_t t = 0; t < kPageTokens; ++t) tokens.emplace_back(-angle(a, b, head, t), t);
    std::sort(tokens.begin(), tokens.end());
    tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(std::ceil(0.05 * kPageTokens)));
    for (const auto& [minus_angle, t] : tokens) {
      const double between = -minus_angle, sine = std::sin(between);
      double aa = 0, bb = 0;
      for (std::size_t d = 0; d < a.dim; ++d)
        aa += std::pow(a.at(head, t, d), 2.0), bb += std::pow(b.at(head, t, d), 2.0);
      const double a_length = std::sqrt(aa), b_length = std::sqrt(bb);
      for (std::size_t d = 0; d < a.dim; ++d) {
        const double x = a.at(head, t, d) / a_length, y = b.at(head, t, d) / b_length;
        const double direction = sine < 1e-6 ? x : (std::sin(0.4 * between) * x + std::sin(0.6 * between) * y) / sine;
        a.at(head, t, d) = static_cast<float>(direction * a_length);
        b.at(head, t, d) = static_cast<float>(direction * b_length);
      }
    }
  }
};

inline std::unique_ptr<KvCodec> minicache(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<MiniCache>(side, std::move(model));
}

}  // namespace snug::reference
