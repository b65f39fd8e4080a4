#pragma once
/// A model ready to run: configuration, tokenizer, weights and the forward pass.

#include <memory>
#include <span>
#include <string>

#include "base/ledger.hpp"
#include "base/thread_pool.hpp"
#include "format/gguf.hpp"
#include "model/config.hpp"
#include "model/sequence.hpp"
#include "text/tokenizer.hpp"

namespace snug {

/// One token to process. Rows of one sequence stand in order; each continues its sequence at the next position.
struct Row {
  TokenId token = 0;
  Sequence* sequence = nullptr;
  bool wants_logits = false;
};

struct ModelOptions {
  std::size_t max_rows = 512;  ///< most rows of one forward call; activations are sized by it
  bool reference =
      false;  ///< dequantise all weights to f32, f32 activations and KV rounding as usual (slow: for `eval kl`)
  /// Where the budget is too small for all weights, KV of so many tokens is left room for (more pushes weights out).
  std::size_t kv_tokens = 2048;
};

/// What one forward call cost (bytes of weights and KV that had to be read).
struct ForwardStats {
  Bytes weight_bytes = 0, kv_bytes = 0;
};

/// Not thread-safe: one forward at a time. `ledger` and `pool` outlive the model.
class Model {
public:
  /// Throws IoError, FormatError, OutOfBudget; an unknown architecture lists the known ones.
  static std::unique_ptr<Model> load(const std::string& path, Ledger& ledger, ThreadPool& pool,
                                     ModelOptions options = {});
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual const GgufFile& file() const = 0;
  virtual std::size_t max_rows() const = 0;

  /// An empty sequence of at most `max_tokens` tokens; memory is committed as it grows.
  virtual std::unique_ptr<Sequence> new_sequence(std::size_t max_tokens) = 0;

  /// Processes rows (1..max_rows, of any number of sequences) and appends them to their sequences. Logits of the rows
  /// that want them are written to `logits` in row order: f32[wanted][config().vocab_size].
  /// Bit-identical however rows are split over calls, batches and threads.
  /// Throws Error when a token id is out of range or a sequence is full, OutOfBudget when its KV cannot grow: nothing
  /// has changed then.
  virtual ForwardStats forward(std::span<const Row> rows, std::span<float> logits) = 0;
};

}  // namespace snug
