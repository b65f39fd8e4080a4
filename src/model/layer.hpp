#pragma once
/// The weights of a model, as named in GGUF files.

#include <vector>

#include "base/thread_pool.hpp"
#include "model/config.hpp"
#include "model/linear.hpp"
#include "weights/resident_source.hpp"

namespace snug {

/// Experts or, with one expert, a dense feed-forward block.
struct FeedForward {
  Linear gate, up, down;
};

/// Vectors are f32; an empty one means that the model has none.
struct Layer {
  std::vector<float> attention_norm, ffn_norm;            ///< before the block
  std::vector<float> attention_post_norm, ffn_post_norm;  ///< on the block's result, before the residual is added
  std::vector<float> query_norm, key_norm;                ///< per head, or over all heads (olmoe)
  std::vector<float> sinks;                               ///< f32[heads]
  Linear query, key, value, output;
  FeedForward dense;
  Linear router;
  FeedForward experts;
};

struct ModelWeights {
  Linear embedding, output;  ///< output may be the embedding itself
  std::vector<float> output_norm;
  std::vector<Layer> layers;
};

/// Announces all matrices to `source` and reads all vectors. Throws FormatError for missing tensors and wrong shapes.
ModelWeights map_weights(const GgufFile& file, const ModelConfig& config, ResidentSource& source, bool as_f32);

}  // namespace snug
