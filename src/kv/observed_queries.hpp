#pragma once
/// The queries that a page is weighed by (KvObserved), as codecs work on them.

#include <algorithm>
#include <vector>

#include "kv/kv_codec.hpp"

namespace snug {

/// Those of the query heads that share a KV head: f32[kObservedTokens * group][k_dim].
inline std::vector<float> observed_queries(const KvObserved& observed, const KvShape& shape, std::size_t head) {
  const std::size_t each = std::size_t{shape.group} * shape.k_dim;
  std::vector<float> queries(kObservedTokens * each);
  for (std::size_t t = 0; t < kObservedTokens; ++t)
    kernels().from_bf16(observed.queries + t * shape.query_values() + head * each, each, queries.data() + t * each);
  return queries;
}

/// Indices of `weights`, from the largest down.
inline std::vector<std::size_t> heaviest_first(const std::vector<float>& weights) {
  std::vector<std::size_t> order(weights.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  return order;
}

}  // namespace snug
