#pragma once
/// What codecs learn from: keys, values and queries that a model's layers computed on a text (measure/kv_samples.hpp).

#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/thread_pool.hpp"
#include "kv/kv_tables.hpp"

namespace snug {

struct KvSamples {
  struct Layer {
    std::span<const bf16_t> keys;    ///< [tokens][kv_heads][k_dim], before rotation
    std::span<const bf16_t> values;  ///< [tokens][kv_heads][v_dim]
    /// [kv_heads][k_dim][k_dim]: the mean of q q^T before rotation and scaling, summed over a head's group of queries.
    std::span<const float> queries;

    std::span<const bf16_t> of(KvSide side) const { return side == KvSide::keys ? keys : values; }
  };
  std::size_t tokens = 0;
  std::size_t context = 0;    ///< the token at index i stood at position i % context
  std::vector<Layer> layers;  ///< those that keep no KV are empty
};

struct KvLearning {
  const KvModel& model;
  const KvSamples& samples;
  ThreadPool& pool;
  std::function<void(std::size_t done, std::size_t all)> progress{};

  void report(std::size_t done, std::size_t all) const {
    if (progress) progress(done, all);
  }
};

/// Named arrays of one side of a layer, without the side's name: ".mean".
using KvArrays = std::vector<std::pair<std::string_view, std::vector<float>>>;
/// Learns both sides of all layers that keep KV, each on its own, by all threads.
KvTables learn_sides(const KvLearning& from, const std::function<KvArrays(std::size_t layer, KvSide side)>& learn);

/// Of each channel of samples [tokens][channels].
std::vector<float> channel_means(std::span<const bf16_t> samples, std::size_t channels);

}  // namespace snug
