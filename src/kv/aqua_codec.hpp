#pragma once
/// A layer's keys are predicted from the reconstruction of the layer below, its values from its own keys and the values
/// of the layer below, by linear maps over all heads that are learned on a text; only what is left is kept (AQUA-KV,
/// arXiv 2501.19392): integers around zero with a scale per channel and page, of 2 bits, and of 4 in the lowest layer
/// of a kind, where the mean is all that is predicted. Keys are those before rotation.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

/// What a layer of a model predicts a side from: channels of all heads.
struct AquaShape {
  bool lowest;
  std::size_t key_inputs, value_inputs, outputs;

  AquaShape(const KvModel& model, std::size_t layer, KvSide side);
  std::size_t inputs() const { return key_inputs + value_inputs; }
  std::size_t bits() const { return lowest ? 4 : 2; }
};

/// Throws FormatError when `learned` is not of such a model.
std::unique_ptr<KvCodec> make_aqua_codec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned);

/// Tables "key.weights" [outputs][inputs], "key.bias" [outputs], and the same for "value". Layers are learned from the
/// lowest up, each from what is reconstructed of the one below.
KvTables learn_aqua(const KvLearning& from);

}  // namespace snug
