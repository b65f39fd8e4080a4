#pragma once
/// What codecs learn from: keys, values and queries that a model's layers computed on a text (measure/kv_samples.hpp).

#include <functional>
#include <span>
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

}  // namespace snug
