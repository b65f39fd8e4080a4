#pragma once
/// The weights of a model, as named in GGUF files.

#include <vector>

#include "base/thread_pool.hpp"
#include "model/config.hpp"
#include "model/linear.hpp"
#include "weights/file_source.hpp"

namespace snug {

/// Experts or, with one expert, a dense feed-forward block. Without a gate, `up` is none and the file's ffn_up is
/// `gate`.
struct FeedForward {
  Linear gate, up, down;
};

/// The input side of a gated delta rule layer; vectors are f32.
struct DeltaNetWeights {
  Linear mixed;             ///< queries, keys and values, before the convolution
  Linear gate;              ///< of the result
  Linear beta, alpha;       ///< f32[value_heads] each; alpha is empty where `beta` holds both, key head by key head
  std::vector<float> conv;  ///< [taps][conv_size]
  std::vector<float> step_bias, decay, norm;
};

/// Vectors are f32; an empty one means that the model has none.
struct Layer {
  std::vector<float> attention_norm, ffn_norm;            ///< before the block
  std::vector<float> attention_post_norm, ffn_post_norm;  ///< on the block's result, before the residual is added
  std::vector<float> query_norm, key_norm;                ///< per head, or over all heads (olmoe)
  std::vector<float> sinks;                               ///< f32[heads]
  Linear query;  ///< twice as many rows: each head's query is followed by the gate of its result
  Linear key;    ///< none where another layer's keys and values are read
  Linear value;  ///< none: the keys, before their norm
  Linear output;
  DeltaNetWeights delta;
  FeedForward dense;
  Linear router;
  std::vector<float> router_norm;  ///< the router reads the block's input normalised by these (gemma4)
  FeedForward experts;
  std::size_t expert_layer = 0;                                         ///< its number among those with experts
  std::vector<float> expert_scale;                                      ///< f32[experts] on the results
  FeedForward shared;                                                   ///< an expert that is always used
  std::vector<float> shared_gate;                                       ///< times sigmoid(this . input)
  std::vector<float> dense_post_norm, experts_norm, experts_post_norm;  ///< dense block beside the experts (gemma4)
  Linear per_layer_gate, per_layer_output;
  std::vector<float> per_layer_norm;
  float output_scale = 1.0f;  ///< on the layer's result
};

struct ModelWeights {
  Linear embedding, output;  ///< output may be the embedding itself
  std::vector<float> output_norm;
  Linear per_layer_embedding, per_layer_projection;  ///< gemma4's inputs of every layer
  std::vector<float> per_layer_norm;
  std::vector<Layer> layers;
};

/// Announces all matrices to `source` and reads all vectors. Throws FormatError for missing tensors and wrong shapes.
ModelWeights map_weights(const GgufFile& file, const ModelConfig& config, FileSource& source, bool as_f32);

}  // namespace snug
