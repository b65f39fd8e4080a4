#pragma once
/// A model ready to run: configuration, tokenizer, weights and the forward pass.

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>

#include "base/arena_plan.hpp"
#include "base/ledger.hpp"
#include "base/page_stock.hpp"
#include "base/thread_pool.hpp"
#include "format/gguf.hpp"
#include "kv/kv_file.hpp"
#include "kv/kv_pools.hpp"
#include "model/config.hpp"
#include "model/routing_trace.hpp"
#include "model/sequence.hpp"
#include "model/sparse_ffn.hpp"
#include "text/tokenizer.hpp"
#include "weights/file_source.hpp"

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
  /// Tokens of context that memory is planned for. 0: all weights are kept in memory when KV of the trained context
  /// fits beside them; else KV of kUsualContext tokens is left room for, and more pushes weights out.
  std::size_t context = 0;
  /// Charges the ledger with what the process holds already: for a program that runs one model.
  bool charge_process = false;
  std::string expert_policy{kDefaultExpertPolicy};  ///< which experts leave memory (weights/expert_policy.hpp)
  bool use_pack = true;                             ///< reads weights from a pack that lies beside the model
  ArenaPlanner place_activations = plan_arena;      ///< which activations share memory (tests)
  KvChoice kv{};                                    ///< how pages of the KV cache are kept
  KvSpillOptions kv_spill{};                        ///< how much of it may be in memory
  KvSwapOptions kv_swap{};                          ///< where sequences go that nobody computes with
  std::function<KvFormat(std::shared_ptr<const KvModel>)> kv_format{};  ///< the same, in place of a name (tests)
  SparseFfnOptions sparse_ffn{};  ///< calls with one row use MODEL.ffn and a share of the neurons
  /// Other models have weights in the same ledger, and one of them computes at a time: it rests after loading, and
  /// wake() comes before forward(). What they leave to each other goes through `stock`, which may be null.
  bool shares_memory = false;
  PageStock* stock = nullptr;
  bool load_weights = true;  ///< false: only to ask for plan(),
  Bytes plan_for = 0;        ///< of this budget
};
inline constexpr std::size_t kUsualContext = 2048;

/// Where the bytes are with a full context, and what a decode step moves.
struct MemoryPlan {
  Bytes budget = 0, smallest = 0;  ///< and the least budget that would do
  std::size_t context = 0, max_rows = 0, layers = 0;
  std::array<Bytes, kTagCount> by_tag{};
  WeightPlan weights;
  Bytes step_bytes = 0;                 ///< weights that a decode step multiplies with
  Bytes streamed_bytes = 0;             ///< of which so many come from the disk, as they are in the file
  Bytes expert_token_bytes = 0;         ///< of experts that a token uses, as they are in the file
  double expert_hits = 0;               ///< share of which is found in memory, as far as is known,
  double expert_hits_best = 0;          ///< and at most (SCH); 0: not known
  Bytes kv_bytes = 0;                   ///< KV that it reads when the context is full
  std::uint64_t weights_per_token = 0;  ///< values that each token of a prefill is multiplied with
  bool fits() const { return smallest <= budget; }
  Bytes used() const { return std::accumulate(by_tag.begin(), by_tag.end(), Bytes{0}); }
};

/// The weights of one of several models.
struct WeightUse {
  Bytes in_memory = 0, all = 0;
  Bytes read = 0;  ///< of the files, so far: those that came into memory to stay
};

/// What one forward call cost (bytes of weights and KV that had to be read).
struct ForwardStats {
  Bytes weight_bytes = 0, kv_bytes = 0;
};

/// Sees a dense layer's block: x[rows][width] that goes in, hidden[rows][neurons] after the activation.
using FfnObserver = std::function<void(std::size_t layer, std::size_t rows, const float* x, const float* hidden)>;

/// What an attention layer computes for some rows, normalised, but before rotation and scaling: of row r at r * stride.
struct KvRows {
  std::size_t kv_layer, rows, stride;
  const float* queries;        ///< [heads][k_dim]
  const float *keys, *values;  ///< [kv_heads][k_dim or v_dim]; null when the layer attends to the KV of another
};
using KvObserver = std::function<void(const KvRows& rows)>;

/// Not thread-safe but for resize(): one forward at a time. `ledger` and `pool` outlive the model.
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
  /// Rows of one sequence that a call may hold now.
  std::size_t most_rows(const Sequence& sequence) const { return std::min(max_rows(), sequence.most_rows()); }
  /// Of the KV cache of one sequence of so many tokens.
  virtual Bytes kv_bytes(std::size_t tokens) const = 0;
  /// Of them, what can be had without the ledger: pages that others left free.
  virtual Bytes free_kv_bytes() const = 0;
  /// Where sequences go that leave memory (ModelOptions::kv_swap); null: nowhere.
  virtual KvSwap* swap() const = 0;
  /// Of weights that are read from the disk for each pass, since loading or the last resize().
  virtual StreamStats stream_stats() const = 0;
  /// Of experts that are not all in memory.
  virtual ExpertStats expert_stats() const = 0;
  /// From now on appends what routers choose to `trace` (made empty first); null: no more. Only for models with
  /// experts.
  virtual void record_routing(RoutingTrace* trace) = 0;
  /// Writes the model's pack (format/pack.hpp) to `path`, whole or not at all. REQUIRES: loaded without a pack.
  virtual void write_pack(const std::string& path,
                          const std::function<void(Bytes done, Bytes all)>& progress) const = 0;
  /// From now on `observer` sees what dense layers compute; empty: nothing is observed any more.
  virtual void observe_ffn(FfnObserver observer) = 0;
  /// From now on `observer` sees what goes into the KV cache, and what asks for it; empty: nothing any more.
  virtual void observe_kv(KvObserver observer) = 0;
  virtual SparseFfnStats sparse_ffn_stats() const = 0;
  /// In a budget for a context (of one sequence): what loading does, and what to expect.
  virtual MemoryPlan plan(Bytes budget, std::size_t context) const = 0;

  /// An empty sequence of at most `max_tokens` tokens; memory is committed as it grows.
  virtual std::unique_ptr<Sequence> new_sequence(std::size_t max_tokens) = 0;

  /// Writes a sequence, whose tokens are `tokens`, to a file (kv/kv_file.hpp). Throws IoError.
  virtual void save(const Sequence& sequence, std::span<const TokenId> tokens, const std::string& path) const = 0;
  /// Goes on with a saved one, of at most `max_tokens` tokens; `tokens` become those that it has. Throws IoError,
  /// FormatError: of another model, kept another way, or damaged; OutOfBudget.
  virtual std::unique_ptr<Sequence> load_sequence(const std::string& path, std::size_t max_tokens,
                                                  std::vector<TokenId>& tokens) = 0;
  /// The same of what need not have come whole yet: all but the pages, which the caller fills with what follows
  /// (KvFile::prepare).
  virtual std::unique_ptr<Sequence> receive(const KvFile& head, std::size_t max_tokens,
                                            std::vector<std::span<std::byte>>& pages) = 0;
  /// What save() would write, for as long as the sequence stays as it is; null: parts of it have left memory.
  virtual std::unique_ptr<KvImage> image(const Sequence& sequence, std::span<const TokenId> tokens) const = 0;
  /// Those who give the same compute the same KV to the bit, and can read what the other wrote.
  virtual std::uint64_t kv_identity() const = 0;
  /// Of all sequences.
  virtual KvUse kv_use() const = 0;
  /// Of the KvFormat.
  virtual const std::string& kv_name() const = 0;
  /// Whether load_sequence() would do, as far as a file's head says.
  virtual bool saved_here(const KvFile& file) const = 0;

  /// Processes rows (1..max_rows, of any number of sequences, at most most_rows() of each) and appends them to their
  /// sequences. Logits of the rows that want them are written to `logits` in row order:
  /// f32[wanted][config().vocab_size]. Bit-identical however rows are split over calls, batches and threads (with
  /// sparse_ffn: for the same split). Throws Error when a token id is out of range or a sequence is full, OutOfBudget
  /// when its KV cannot grow: nothing has changed then.
  virtual ForwardStats forward(std::span<const Row> rows, std::span<float> logits) = 0;
  /// The same, but gives what logits are computed from in their place: the last layer's output, normalised.
  /// f32[wanted][config().width].
  virtual ForwardStats hidden(std::span<const Row> rows, std::span<float> states) = 0;
  /// `tokens` of one sequence in as many calls as it takes; the logits of the last one, or none where there is no room
  /// for them.
  void feed(Sequence& sequence, std::span<const TokenId> tokens, std::span<float> logits);

  /// Waits until a sequence that was swapped out is in memory again. Throws OutOfBudget (nothing has changed then),
  /// IoError.
  void bring_back(Sequence& sequence) const;

  /// Changes the ledger's limit, and how much of the weights is in memory with it. May be called from another thread
  /// while forward() runs: it waits for its end. Throws Error when that is less than is needed now: nothing has
  /// changed then; IoError when weights cannot be read.
  virtual void resize(Bytes budget) = 0;

  // Of models that share memory (ModelOptions::shares_memory). REQUIRES: none of them computes meanwhile.

  /// Gets ready for forward(). `others` may give up so many bytes: `make_room` is asked for what is missing. Throws
  /// OutOfBudget, IoError: it rests then.
  virtual void wake(Bytes others, const std::function<void(Bytes missing)>& make_room) = 0;
  /// Gives up what only forward() needs. Weights that are in memory stay.
  virtual void rest() = 0;
  /// Lets weights go until so many bytes are released or there are none; returns how many were. REQUIRES: it rests.
  virtual Bytes give_weights(Bytes wanted) = 0;
  virtual WeightUse weight_use() const = 0;
  /// Memory that wake() needs at least, for a context of so many tokens, beside what a resting model has.
  virtual Bytes least_to_wake(std::size_t context) const = 0;
};

}  // namespace snug
