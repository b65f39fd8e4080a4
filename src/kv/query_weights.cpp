#include "kv/query_weights.hpp"

#include <algorithm>
#include <cmath>

namespace snug {

namespace {

constexpr std::size_t kDistances = 1024, kDistanceStep = 4;

/// The mean of cos and sin of `frequency` times a distance.
struct Mean {
  double cos = 0, sin = 0;
  explicit Mean(double frequency) {
    for (std::size_t d = 0; d < kDistances; d += kDistanceStep) {
      cos += std::cos(frequency * static_cast<double>(d));
      sin += std::sin(frequency * static_cast<double>(d));
    }
    cos /= kDistances / kDistanceStep;
    sin /= kDistances / kDistanceStep;
  }
};

}  // namespace

std::vector<float> query_moments(const KvLearning& from, std::size_t layer, std::size_t head) {
  const std::size_t dim = from.model.shapes[layer].k_dim;
  const float* m = from.samples.layers[layer].queries.data() + head * dim * dim;
  std::vector<float> out(m, m + dim * dim);
  const KvRope& rope = from.model.ropes[layer];
  const std::size_t pairs = rope.inverse_frequency.size();
  // Complex numbers: z = q_a + i q_b turns by e^(i f d). A pair of pairs has products that turn by the difference of
  // their frequencies (z w*) and by the sum (z w); a pair and a channel that does not turn, by its own.
  const auto entry = [&](std::size_t a, std::size_t b) -> double { return m[a * dim + b]; };
  const auto put = [&](std::size_t a, std::size_t b, double x) {
    out[a * dim + b] = out[b * dim + a] = static_cast<float>(x);
  };
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::size_t ia = rope.channel(i, 0), ib = rope.channel(i, 1);
    for (std::size_t j = 0; j <= i; ++j) {
      const std::size_t ja = rope.channel(j, 0), jb = rope.channel(j, 1);
      const double aa = entry(ia, ja), ab = entry(ia, jb), ba = entry(ib, ja), bb = entry(ib, jb);
      const Mean apart(rope.inverse_frequency[i] - rope.inverse_frequency[j]),
          together(rope.inverse_frequency[i] + rope.inverse_frequency[j]);
      // z w* = (aa + bb) + i (ba - ab) and z w = (aa - bb) + i (ba + ab), times the mean of e^(i ...).
      const double dr = (aa + bb) * apart.cos - (ba - ab) * apart.sin,
                   di = (ba - ab) * apart.cos + (aa + bb) * apart.sin;
      const double sr = (aa - bb) * together.cos - (ba + ab) * together.sin,
                   si = (ba + ab) * together.cos + (aa - bb) * together.sin;
      put(ia, ja, 0.5 * (dr + sr));
      put(ib, jb, 0.5 * (dr - sr));
      put(ia, jb, 0.5 * (si - di));
      put(ib, ja, 0.5 * (si + di));
    }
    const Mean own(rope.inverse_frequency[i]);
    for (std::size_t d = 2 * pairs; d < dim; ++d) {
      const double a = entry(ia, d), b = entry(ib, d);
      put(ia, d, a * own.cos - b * own.sin);
      put(ib, d, b * own.cos + a * own.sin);
    }
  }
  return out;
}

std::vector<float> query_weights(const KvLearning& from, std::size_t layer) {
  const KvShape& shape = from.model.shapes[layer];
  std::vector<float> weights;
  for (std::size_t head = 0; head < shape.kv_heads; ++head) {
    const std::vector<float> moments = query_moments(from, layer, head);
    double mean = 0;
    for (std::size_t d = 0; d < shape.k_dim; ++d) mean += moments[d * shape.k_dim + d];
    mean /= shape.k_dim;
    for (std::size_t d = 0; d < shape.k_dim; ++d) {
      const double share = mean > 0 ? moments[d * shape.k_dim + d] / mean : 1.0;
      weights.push_back(static_cast<float>(std::max(share, 1e-3)));
    }
  }
  return weights;
}

}  // namespace snug
