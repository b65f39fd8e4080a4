#pragma once
/// Mixture-of-experts feed-forward: rows are grouped by expert, so that each expert's weights are read once.

#include "base/buffer.hpp"
#include "model/layer.hpp"
#include "model/routing_trace.hpp"

namespace snug {

class MixtureOfExperts {
public:
  MixtureOfExperts(Ledger& ledger, Products& products, const ModelConfig& config, std::size_t max_rows);

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
  void multiply(const Layer& layer, std::span<const std::uint32_t> experts, std::span<const std::size_t> begin,
                std::size_t k, Products::Act act);

  Products& products_;
  const ModelConfig& config_;
  Buffer memory_;
  float *logits_, *gathered_f32_, *hidden_f32_, *results_;
  std::byte *gathered_q8_, *hidden_q8_;
  std::size_t logit_stride_;
  std::vector<Choice> choices_;       ///< [rows][used]
  std::vector<std::uint32_t> uses_;   ///< [experts]: rows that chose each
  std::vector<std::uint8_t> likely_;  ///< [experts]: nearly chosen by the last row
  RoutingTrace* trace_ = nullptr;
  std::vector<std::uint32_t> predicted_;
  std::vector<float> early_input_;
};

}  // namespace snug
