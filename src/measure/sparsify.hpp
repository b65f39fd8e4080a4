#pragma once
/// Makes MODEL.gguf.ffn (format/ffn_file.hpp): bundles of the model's feed-forward neurons and predictors fitted to a
/// text.

#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.hpp"
#include "model/model.hpp"

namespace snug {

struct SparsifyOptions {
  std::size_t rank = 128;  ///< of predictors, a multiple of 32
  std::size_t context = 512, max_tokens = 8192;
  double ridge = 1e-4;  ///< of the inputs' mean square
  std::function<void(const char* step, std::size_t done, std::size_t all)> progress{};
};

struct SparsifyResult {
  std::size_t tokens = 0, layers = 0;
  double explained = 0;  ///< share of the second moment of gate and up that predictors account for, mean over layers
  Bytes predictor_bytes = 0, bundle_bytes = 0;
};

/// Throws Error for models without dense feed-forward blocks, or with experts, biases in these blocks or a width that
/// is not a multiple of 32, and for a text that is too short; IoError.
SparsifyResult sparsify(Model& model, Ledger& ledger, ThreadPool& pool, const std::vector<TokenId>& tokens,
                        const SparsifyOptions& options, const std::string& path);

}  // namespace snug
