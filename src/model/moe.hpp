#pragma once
/// Mixture-of-experts feed-forward: rows are grouped by expert, so that each expert's weights are read once.

#include <algorithm>

#include "model/layer.hpp"
#include "model/routing_trace.hpp"

namespace snug {

/// Memory of one layer's experts. A slot is a row with one of its experts; slots are sorted by expert.
struct ExpertMemory {
  float* logits;     ///< [rows][logit_stride]
  std::byte* slots;  ///< [rows * used][slot_bytes]: inputs; an expert's results take the place of its inputs
  float* hidden;     ///< [rows * used][ffn]
  std::byte* hidden_q8;

  static std::size_t logit_stride(const MoeConfig& moe) { return round_up(moe.experts, kTileRows); }
  /// Room for a row of results, which is that of an input in f32, or of an input in int8.
  static std::size_t slot_bytes(std::size_t width) {
    return std::max(round_up(width * sizeof(float), 64), Bytes{Q8Rows::stride_for(round_up(width, 32))});
  }
};

class MixtureOfExperts {
public:
  /// `memory`: for as many rows as will be routed at a time.
  MixtureOfExperts(Products& products, const ModelConfig& config, const ExpertMemory& memory);

  /// Chooses the experts of every row from `input` (normalised rows), and begins to fetch them.
  void route(const Layer& layer, const Input& input);
  /// Appends what is chosen from now on to `trace`; null: no more.
  void record(RoutingTrace* trace) { trace_ = trace; }
  /// Between route() and run(), for a single row: has what `next` will probably choose for it read in advance. `x`: the
  /// row as it is now. Adjacent layers see nearly the same residual stream, so the next router is simply asked early.
  void expect(const Layer& next, const float* x);
  /// out[rows][width] += the result of the experts chosen last for `input` (both its forms filled).
  /// Returns the bytes of expert weights that were read.
  Bytes run(const Layer& layer, const Input& input, Products::Act act, float* out);

private:
  struct Choice {
    std::uint32_t expert;
    float weight;
  };
  void choose(const Layer& layer, const float* logits, Choice* out) const;
  void want(const Layer& layer, std::size_t rows);
  float* slot(std::size_t index) const { return reinterpret_cast<float*>(memory_.slots + index * slot_bytes_); }
  void multiply(const Layer& layer, std::span<const std::uint32_t> experts, std::span<const std::size_t> begin,
                std::size_t k, Products::Act act);

  Products& products_;
  const ModelConfig& config_;
  ExpertMemory memory_;
  std::size_t logit_stride_, slot_bytes_;
  std::vector<Choice> choices_;       ///< [rows][used]
  std::vector<std::uint32_t> uses_;   ///< [experts]: rows that chose each
  std::vector<std::uint8_t> likely_;  ///< [experts]: nearly chosen by the last row
  RoutingTrace* trace_ = nullptr;
  std::vector<std::uint32_t> predicted_;
  std::vector<float> early_input_;
};

}  // namespace snug
