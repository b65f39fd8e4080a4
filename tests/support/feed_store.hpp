#pragma once
/// A KV store goes through calls as a model's forward() puts it through them.

#include "kv/kv_store.hpp"

namespace snug::testing_support {

/// Tokens [from, to) in calls of at most `rows`.
inline void feed_store(KvStore& store, ThreadPool& pool, std::size_t from, std::size_t to,
                       std::size_t rows = std::numeric_limits<std::size_t>::max()) {
  const KvFormat& format = store.format();
  const std::size_t layers = store.shapes().size();
  for (std::size_t at = from, end; at < to; at = end) {
    end = at + std::min({to - at, rows, format.most_rows(at)});
    store.forget_codes(at);
    store.reserve(end);
    for (std::size_t layer = 0; layer < layers; ++layer)
      if (store.shapes()[layer].kv_heads > 0) store.prepare(pool, layer, KvFormat::coded_pages(end - 1));
    if (format.late()) store.encode_late(pool, format.coded_between_calls(end));
    store.trim(end);
  }
}

}  // namespace snug::testing_support
