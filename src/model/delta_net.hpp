#pragma once
/// Gated delta rule layers (Gated DeltaNet, arXiv 2412.06464; qwen3-next, qwen3.5): a causal convolution, then per head
/// a matrix of constant size that forgets, is corrected and is read once per token.

#include <memory>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "model/layer.hpp"

namespace snug {

/// The state of one sequence before and after its last forward call: a call reads one and writes the other.
class RecurrentState {
public:
  RecurrentState(Ledger& ledger, const ModelConfig& config);
  const float* before(std::size_t layer) const { return at(layer, current_); }
  float* after(std::size_t layer) const { return at(layer, 1 - current_); }
  /// The last call is done: what it wrote is the state.
  void advance() { current_ = 1 - current_; }
  /// Takes the last call back (once).
  void step_back() { current_ = 1 - current_; }
  void clear();
  /// What the next call reads, of all layers: the whole state but for taking the last call back.
  std::span<std::byte> bytes() const {
    return std::as_writable_bytes(std::span(memory_.as<float>() + current_ * layers_ * size_, layers_ * size_));
  }
  /// Throws OutOfBudget.
  std::unique_ptr<RecurrentState> copy() const;
  Bytes memory_bytes() const { return memory_.size(); }

private:
  float* at(std::size_t layer, unsigned which) const;

  Ledger& ledger_;
  const ModelConfig& config_;
  std::vector<std::size_t> index_;  ///< of each layer among the recurrent ones
  std::size_t size_ = 0, layers_ = 0;
  unsigned current_ = 0;
  Buffer memory_;
};

/// Consecutive rows [row, row + count) of one sequence.
struct RecurrentRun {
  RecurrentState* state;
  std::size_t row, count;
};

/// Memory of one layer.
struct DeltaNetMemory {
  float* raw;        ///< [rows][raw_stride]: queries, keys, values before the convolution; gate; beta; alpha
  float* convolved;  ///< [rows][conv_size]

  static std::size_t raw_stride(const DeltaNetConfig& delta) {
    return round_up(delta.conv_size() + delta.value_size() + std::size_t{2} * delta.value_heads, kTileRows);
  }
};

class DeltaNet {
public:
  /// `memory`: for as many rows as will run at a time.
  DeltaNet(Products& products, const ModelConfig& config, const DeltaNetMemory& memory);

  /// `input`: normalised rows; out: f32[rows][delta.value_size()], ready for the output projection.
  void run(const DeltaNetWeights& weights, std::size_t layer, std::span<const RecurrentRun> runs, const Input& input,
           float* out);

private:
  void convolve(const DeltaNetWeights& weights, std::size_t layer, const RecurrentRun& run);
  /// One head over all rows of a run.
  void recur(const DeltaNetWeights& weights, std::size_t layer, const RecurrentRun& run, std::size_t head, float* out);

  Products& products_;
  const ModelConfig& config_;
  const DeltaNetConfig& delta_;
  std::size_t conv_size_, value_size_, stride_;
  float *raw_, *convolved_;
};

}  // namespace snug
