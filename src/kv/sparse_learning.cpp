// Dictionaries of sparse codes, by gradient descent.

#include <algorithm>
#include <cmath>
#include <random>

#include "kv/query_weights.hpp"
#include "kv/sparse_codec.hpp"

namespace snug {

namespace {

constexpr int kPasses = 6;
constexpr std::size_t kMostVectors = 8192, kStepBlocks = 16;  // of 64 vectors

struct Dictionary {
  std::vector<float> atoms, mean, factor;
  float largest = 1;
};

class Learner {
public:
  Learner(std::span<const bf16_t> samples, std::size_t heads, std::size_t dim, std::vector<float> weights,
          unsigned seed)
      : dim_(dim), random_(seed) {
    const std::size_t channels = heads * dim, tokens = samples.size() / channels;
    d_.mean = channel_means(samples, channels);
    for (std::size_t c = 0; c < channels; ++c) d_.factor.push_back(weights.empty() ? 1.0f : std::sqrt(weights[c]));
    // Vectors of all heads, spread over the tokens.
    const std::size_t vectors = std::min(kMostVectors, tokens * heads) / kPageTokens * kPageTokens;
    points_.resize(vectors * dim);
    for (std::size_t v = 0; v < vectors; ++v) {
      const std::size_t from = v * (tokens * heads) / vectors, first = from % heads * dim;
      for (std::size_t d = 0; d < dim; ++d)
        points_[(v / kPageTokens * dim + d) * kPageTokens + v % kPageTokens] =
            (float_of(samples[from / heads * channels + first + d]) - d_.mean[first + d]) * d_.factor[first + d];
    }
    begin();
  }

  Dictionary find() {
    const std::size_t block = dim_ * kPageTokens, blocks = points_.size() / block;
    std::vector<std::size_t> order(blocks);
    for (std::size_t b = 0; b < blocks; ++b) order[b] = b;
    for (int pass = 0; pass < kPasses; ++pass) {
      std::shuffle(order.begin(), order.end(), random_);
      for (std::size_t first = 0; first < blocks; first += kStepBlocks)
        step(std::span(order).subspan(first, std::min(kStepBlocks, blocks - first)));
    }
    return std::move(d_);
  }

private:
  /// Atoms begin as vectors of the text; the longest vector bounds coefficients.
  void begin() {
    const std::size_t block = dim_ * kPageTokens, vectors = points_.size() / dim_;
    float longest = 0;
    std::vector<float> vector(dim_);
    const auto load = [&](std::size_t v) {
      for (std::size_t d = 0; d < dim_; ++d)
        vector[d] = points_[v / kPageTokens * block + d * kPageTokens + v % kPageTokens];
      return std::sqrt(kernels().dot(vector.data(), vector.data(), dim_));
    };
    for (std::size_t v = 0; v < vectors; ++v) longest = std::max(longest, load(v));
    d_.largest = std::max(longest, 1e-20f);
    for (std::size_t a = 0; a < kAtoms; ++a) {
      load(random_() % vectors);
      d_.atoms.insert(d_.atoms.end(), vector.begin(), vector.end());
      normalise(a);
    }
  }

  void normalise(std::size_t a) {
    float* atom = &d_.atoms[a * dim_];
    const float length = std::sqrt(kernels().dot(atom, atom, dim_));
    if (length > 1e-20f)
      kernels().scale(atom, 1 / length, dim_);
    else
      std::fill_n(atom, dim_, 1 / std::sqrt(static_cast<float>(dim_)));
  }

  /// Down the gradient of the squared error in each atom, by the inverse of its curvature.
  void step(std::span<const std::size_t> blocks) {
    const std::size_t block = dim_ * kPageTokens, each = dim_ / kAtomChannels;
    std::vector<float> gradient(kAtoms * dim_), curvature(kAtoms), left(block), column(dim_);
    std::vector<std::uint16_t> codes(each * kPageTokens);
    Pursuit pursuit(d_.atoms.data(), dim_, d_.largest);
    for (const std::size_t b : blocks) {
      std::copy_n(&points_[b * block], block, left.begin());
      pursuit.run(left.data(), codes.data());
      for (std::size_t t = 0; t < kPageTokens; ++t) {
        for (std::size_t d = 0; d < dim_; ++d) column[d] = left[d * kPageTokens + t];
        for (std::size_t i = 0; i < each; ++i) {
          const std::uint16_t code = codes[i * kPageTokens + t];
          const float c = Pursuit::coefficient(code, d_.largest);
          kernels().axpy(&gradient[Pursuit::atom(code) * dim_], c, column.data(), dim_);
          curvature[Pursuit::atom(code)] += c * c;
        }
      }
    }
    for (std::size_t a = 0; a < kAtoms; ++a)
      if (curvature[a] > 0) {
        kernels().axpy(&d_.atoms[a * dim_], 1 / curvature[a], &gradient[a * dim_], dim_);
        normalise(a);
      }
  }

  std::size_t dim_;
  Dictionary d_;
  std::vector<float> points_;  ///< [blocks][dim][64]
  std::mt19937 random_;
};

}  // namespace

KvTables learn_sparse(const KvLearning& from) {
  return learn_sides(from, [&](std::size_t layer, KvSide side) -> KvArrays {
    const KvShape& shape = from.model.shapes[layer];
    const bool keys = side == KvSide::keys;
    Dictionary d = Learner(from.samples.layers[layer].of(side), shape.kv_heads, shape.dim(side),
                           keys ? query_weights(from, layer) : std::vector<float>(),
                           static_cast<unsigned>(2 * layer + (keys ? 0 : 1)))
                       .find();
    return {{".atoms", std::move(d.atoms)},
            {".mean", std::move(d.mean)},
            {".factor", std::move(d.factor)},
            {".largest", {d.largest}}};
  });
}

}  // namespace snug
