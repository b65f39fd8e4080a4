#pragma once
/// Feed-forward blocks of which each token uses only the neurons that are expected to matter: a resident low-rank
/// predictor gives every neuron a score, the best are fetched as bundles (weights/neuron_cache.hpp) and multiplied.
/// After LLM in a flash (arXiv 2312.11514). A result depends on the chosen neurons alone, which are added in their
/// order, not on what was in memory or on the number of threads.

#include <memory>

#include "base/thread_pool.hpp"
#include "model/linear.hpp"
#include "weights/neuron_cache.hpp"

namespace snug {

struct SparseFfnOptions {
  float share = 0;       ///< of each layer's neurons that a token uses; 0: all of them, by the ordinary way
  bool oracle = false;   ///< chooses by the true activations instead of the predictor's (to see what it loses)
  bool measure = false;  ///< compares what is chosen with the true activations, which are computed as well
};

struct SparseFfnStats {
  NeuronStats neurons;
  std::uint64_t tokens = 0;
  // When measured, over all tokens and layers:
  double energy = 0, kept = 0;                    ///< sum of squares of what neurons add, and of the chosen ones'
  std::uint64_t active = 0, missed = 0, all = 0;  ///< neurons that are not 0, of which not chosen; all neurons
};

class SparseFfn {
public:
  SparseFfn(Ledger& ledger, ThreadPool& pool, FfnFile file, const SparseFfnOptions& options, Products::Act act);

  bool has(std::size_t layer) const { return file_.shape().neurons[layer] > 0; }
  const FfnShape& shape() const { return file_.shape(); }
  const SparseFfnOptions& options() const { return options_; }
  /// Memory for bundles of neurons that this cannot do without.
  Bytes least_cache_bytes() const;
  /// Takes about `capacity` bytes for them. REQUIRES: once, before run().
  void make_cache(Bytes capacity);
  Bytes memory_bytes() const { return memory_.size() + (cache_ ? cache_->memory_bytes() : 0); }

  /// out[width] (+)= the layer's block for x[width]. `truth`: the dense block's activations of all neurons, or null.
  /// Returns the bytes of weights that were multiplied. Throws IoError.
  Bytes run(std::size_t layer, const float* x, const float* truth, float* out, bool add);

  SparseFfnStats stats() const;

private:
  void predict(std::size_t layer, const float* x);
  void score(const FfnPredictor& p, std::size_t neurons, std::size_t begin, std::size_t end);
  void choose(std::size_t neurons);
  void compare(const FfnPredictor& p, std::size_t neurons, const float* truth);

  FfnFile file_;
  SparseFfnOptions options_;
  Ledger& ledger_;
  ThreadPool& pool_;
  Products::Act act_;
  Buffer memory_;
  std::vector<const std::byte*> predictors_;
  float *low_rank_, *scores_, *sorted_, *hidden_;
  std::vector<std::uint32_t> chosen_;
  std::unique_ptr<NeuronCache> cache_;
  SparseFfnStats stats_;
};

}  // namespace snug
