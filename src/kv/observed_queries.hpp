#pragma once
/// The queries that a page is weighed by (KvObserved), as codecs work on them.

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

}  // namespace snug
