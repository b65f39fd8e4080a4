#pragma once
/// References that weigh a page by the queries that met it, plainly.

#include <algorithm>

#include "kv/references/reference_codec.hpp"

namespace snug::reference {

class ObservingReference : public ReferenceCodec {
public:
  using ReferenceCodec::ReferenceCodec;
  bool observes() const override { return true; }

protected:
  /// Query `i` of all those that met a KV head: whatever token and query head it is of.
  static std::size_t query_count(const KvShape& shape) { return kObservedTokens * shape.group; }
  float query(KvPlace place, std::size_t head, std::size_t i, std::size_t d) const {
    const KvShape& shape = model().shapes[place.layer];
    const std::size_t token = i / shape.group, query_head = head * shape.group + i % shape.group;
    return from_bf16(place.observed.queries[(token * shape.kv_heads * shape.group + query_head) * shape.k_dim + d]);
  }
  float key(KvPlace place, std::size_t head, std::size_t token, std::size_t d) const {
    return from_bf16(place.observed.keys[head][tile_index(KvSide::keys, token, d, model().shapes[place.layer].k_dim)]);
  }
  /// Indices from the largest of `x` down.
  static std::vector<std::size_t> descending(const std::vector<double>& x) {
    std::vector<std::size_t> order(x.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
    return order;
  }
};

}  // namespace snug::reference
