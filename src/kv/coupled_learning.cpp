// Centroids of coupled channels: k-means over a text's keys and values.

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <random>

#include "kernels/kv_centroids.hpp"
#include "kv/coupled_codec.hpp"
#include "kv/key_excess.hpp"
#include "kv/query_weights.hpp"

namespace snug {

namespace {

constexpr int kIterations = 20;

/// k-means of points f32[blocks][width][64] that lie in lines as the kernel wants them.
class Clusters {
public:
  Clusters(std::vector<float> points, std::size_t width, unsigned seed)
      : points_(std::move(points)), width_(width), count_(points_.size() / width), random_(seed) {}

  std::vector<float> find() {
    spread();
    for (int i = 0; i < kIterations; ++i) move();
    return std::move(centroids_);
  }

private:
  float at(std::size_t point, std::size_t i) const {
    return points_[(point / kPageTokens * width_ + i) * kPageTokens + point % kPageTokens];
  }

  /// k-means++: the next centroid is a point chosen by its squared distance from those there are.
  void spread() {
    std::vector<float> distance(count_, std::numeric_limits<float>::max());
    std::size_t chosen = random_() % count_;
    for (std::size_t c = 0; c < kCentroids; ++c) {
      std::vector<float> centre(width_);
      for (std::size_t i = 0; i < width_; ++i) centre[i] = at(chosen, i);
      centroids_.insert(centroids_.end(), centre.begin(), centre.end());
      double all = 0;
      for (std::size_t block = 0; block < count_; block += kPageTokens) {
        const float* lines = &points_[block * width_];
        float sums[kPageTokens] = {};
        for (std::size_t i = 0; i < width_; ++i)
          for (std::size_t t = 0; t < kPageTokens; ++t) {
            const float off = lines[i * kPageTokens + t] - centre[i];
            sums[t] += off * off;
          }
        for (std::size_t t = 0; t < kPageTokens; ++t) {
          distance[block + t] = std::min(distance[block + t], sums[t]);
          all += distance[block + t];
        }
      }
      double left = std::uniform_real_distribution<double>(0, all)(random_);
      chosen = 0;
      while (chosen + 1 < count_ && (left -= distance[chosen]) > 0) ++chosen;
    }
  }

  void move() {
    std::vector<float> bias(kCentroids);
    for (std::size_t c = 0; c < kCentroids; ++c)
      for (std::size_t i = 0; i < width_; ++i)
        bias[c] -= 0.5f * centroids_[c * width_ + i] * centroids_[c * width_ + i];
    std::vector<double> sums(kCentroids * width_), counts(kCentroids);
    std::byte codes[kPageTokens];
    for (std::size_t block = 0; block < count_; block += kPageTokens) {
      const float* lines = &points_[block * width_];
      kernels().nearest_centroids(lines, centroids_.data(), bias.data(), width_, codes);
      for (std::size_t t = 0; t < kPageTokens; ++t) {
        const auto c = static_cast<std::size_t>(codes[t]);
        counts[c] += 1;
        for (std::size_t i = 0; i < width_; ++i) sums[c * width_ + i] += lines[i * kPageTokens + t];
      }
    }
    for (std::size_t c = 0; c < kCentroids; ++c) {
      const std::size_t lost = random_() % count_;  // where a centroid has no points: begin again somewhere
      for (std::size_t i = 0; i < width_; ++i)
        centroids_[c * width_ + i] = counts[c] > 0 ? static_cast<float>(sums[c * width_ + i] / counts[c]) : at(lost, i);
    }
  }

  std::vector<float> points_, centroids_;
  std::size_t width_, count_;
  std::mt19937 random_;
};

/// Channels [first, first + width) of whole pages of tokens, each times its factor.
std::vector<float> points_of(std::span<const bf16_t> samples, std::size_t channels, std::size_t first,
                             std::span<const float> factors) {
  const std::size_t tokens = samples.size() / channels / kPageTokens * kPageTokens, width = factors.size();
  std::vector<float> points(tokens * width);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t i = 0; i < width; ++i)
      points[(t / kPageTokens * width + i) * kPageTokens + t % kPageTokens] =
          float_of(samples[t * channels + first + i]) * factors[i];
  return points;
}

}  // namespace

KvTables learn_coupled(const KvLearning& from, std::size_t width) {
  struct Job {
    KvSide side;
    std::size_t layer, group;
  };
  struct Arrays {
    std::vector<float> centroids, weights;
  };
  std::vector<Job> jobs;
  std::vector<Arrays> arrays[2];
  const auto& shapes = from.model.shapes;
  for (const KvSide side : {KvSide::keys, KvSide::values})
    for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
      const std::size_t channels = shapes[layer].kv_heads * shapes[layer].dim(side);
      Arrays a{std::vector<float>(channels * kCentroids), std::vector<float>(channels, 1.0f)};
      if (side == KvSide::keys && channels > 0) a.weights = query_weights(from, layer);
      arrays[side == KvSide::values].push_back(std::move(a));
      for (std::size_t g = 0; g < channels / width; ++g) jobs.push_back({side, layer, g});
    }
  std::mutex mutex;
  std::size_t done = 0;
  from.pool.parallel_for(jobs.size(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t j = begin; j < end; ++j) {
      const Job& job = jobs[j];
      const bool values = job.side == KvSide::values;
      Arrays& to = arrays[values][job.layer];
      const KvSamples::Layer& samples = from.samples.layers[job.layer];
      const std::size_t first = job.group * width;
      std::vector<float> factors(width);
      for (std::size_t i = 0; i < width; ++i) factors[i] = std::sqrt(to.weights[first + i]);
      const std::vector<float> found =
          Clusters(points_of(values ? samples.values : samples.keys, to.weights.size(), first, factors), width,
                   static_cast<unsigned>(j))
              .find();
      for (std::size_t c = 0; c < found.size(); ++c)
        to.centroids[first * kCentroids + c] = found[c] / factors[c % width];
      const std::lock_guard lock(mutex);
      from.report(++done, jobs.size());
    }
  });
  KvTables tables;
  for (const bool values : {false, true})
    for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
      if (arrays[values][layer].weights.empty()) continue;
      const std::string name = values ? "value" : "key";
      tables.add(layer, name + ".centroids", std::move(arrays[values][layer].centroids));
      tables.add(layer, name + ".weights", std::move(arrays[values][layer].weights));
    }
  add_key_excess(*make_coupled_codec(KvSide::keys, std::make_shared<KvModel>(from.model), tables, width), from, tables);
  return tables;
}

}  // namespace snug
