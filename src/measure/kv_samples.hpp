#pragma once
/// Runs a model over a text and keeps what its attention layers computed: what KV codecs learn from.

#include <functional>
#include <vector>

#include "kv/kv_learning.hpp"
#include "model/model.hpp"

namespace snug {

struct KvSampleOptions {
  std::size_t context = 2048, max_tokens = 8192;
  std::function<void(std::size_t done, std::size_t all)> progress{};  ///< windows
};

/// Samples and their memory, charged to the ledger.
struct KvSampleSet {
  KvSamples samples;
  std::vector<Buffer> memory;
};

/// Throws Error for a text of less than a window, OutOfBudget.
KvSampleSet sample_kv(Model& model, Ledger& ledger, ThreadPool& pool, const std::vector<TokenId>& tokens,
                      const KvSampleOptions& options);

}  // namespace snug
