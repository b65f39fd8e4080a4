#pragma once
/// Mixture-of-experts feed-forward: rows are grouped by expert, so that each expert's weights are read once.

#include "base/buffer.hpp"
#include "model/layer.hpp"

namespace snug {

class MixtureOfExperts {
public:
  MixtureOfExperts(Ledger& ledger, Products& products, const ModelConfig& config, std::size_t max_rows);

  /// Chooses the experts of every row from `input` (normalised rows).
  void route(const Layer& layer, const Input& input);
  /// out[rows][width] += the result of the experts chosen last for `input` (both its forms filled).
  /// Returns the bytes of expert weights that were read.
  Bytes run(const Layer& layer, const Input& input, Products::Act act, float* out);

private:
  struct Choice {
    std::uint32_t expert;
    float weight;
  };
  void choose(const Layer& layer, const float* logits, Choice* out) const;

  Products& products_;
  const ModelConfig& config_;
  Buffer memory_;
  float *logits_, *gathered_f32_, *hidden_f32_, *results_;
  std::byte *gathered_q8_, *hidden_q8_;
  std::size_t logit_stride_;
  std::vector<Choice> choices_;  ///< [rows][used]
};

}  // namespace snug
