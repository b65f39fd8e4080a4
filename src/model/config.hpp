#pragma once
/// What the forward pass needs to know of a model, read from the GGUF metadata (`{arch}.*`). Architectures are rows of
/// a table (architectures.cpp) of differences from the plain llama layer.

#include <cstdint>
#include <string>
#include <vector>

#include "format/gguf.hpp"
#include "kv/kv_store.hpp"

namespace snug {

/// relu_squared is of blocks without a gate.
enum class Activation : std::uint8_t { silu, gelu, swiglu_oai, relu_squared };
enum class RopePairing : std::uint8_t { adjacent, split_half };  ///< (x[2i], x[2i+1]) / (x[i], x[i + n/2]) = NEOX
enum class LayerKind : std::uint8_t { attention, delta_net };
enum class Gating : std::uint8_t { softmax, sigmoid, softmax_of_chosen };

/// Rotation frequencies of one kind of layer: angle of pair i at position p = p * inverse_frequency[i].
struct RopeTable {
  std::vector<double> inverse_frequency;  ///< empty: no rotation
  float magnitude = 1.0f;                 ///< factor on cos and sin (YaRN, longrope)
};

/// What may differ from layer to layer.
struct LayerConfig {
  LayerKind kind = LayerKind::attention;
  std::uint32_t heads = 0, kv_heads = 0;
  std::uint32_t k_dim = 0, v_dim = 0;  ///< head dimensions of keys (and queries) and values
  std::uint32_t window = 0;            ///< 0: full attention; else the query and window - 1 tokens before it
  std::uint32_t rope = 0;              ///< index into ModelConfig::rope
  std::uint32_t ffn = 0;               ///< dense FFN width, 0: none
  bool moe = false;
  std::int32_t kv_from = -1;  ///< reads another layer's KV (gemma4), -1: its own
};

/// Gated delta rule layers (arXiv 2412.06464; qwen3-next, qwen3.5).
struct DeltaNetConfig {
  std::uint32_t conv = 0;  ///< taps of the causal convolution
  std::uint32_t key_heads = 0, value_heads = 0, k_dim = 0, v_dim = 0;
  bool interleaved = false;  ///< value head h reads key head h / (value_heads / key_heads) instead of h % key_heads

  std::size_t value_size() const { return std::size_t{value_heads} * v_dim; }
  std::size_t conv_size() const { return std::size_t{2} * key_heads * k_dim + value_size(); }
  /// f32 values of one layer's state: the convolution's last inputs, then the heads' matrices.
  std::size_t state_size() const { return (conv - 1) * conv_size() + value_size() * k_dim; }
};

struct MoeConfig {
  std::uint32_t experts = 0, used = 0, ffn = 0, shared_ffn = 0;
  Gating gating = Gating::softmax;
  bool normalise = false;
  float scale = 1.0f;
};

struct ModelConfig {
  std::string architecture, name;
  std::uint32_t vocab_size = 0, width = 0, layer_count = 0, trained_context = 0;
  float norm_epsilon = 1e-5f;
  float embedding_scale = 1.0f;
  float residual_scale = 1.0f;
  float logit_scale = 1.0f;
  float logit_softcap = 0, attention_softcap = 0;
  float attention_scale = 0;          ///< factor on q.k
  bool value_norm = false;            ///< values are normalised per head (without weights)
  std::uint32_t per_layer_input = 0;  ///< width of gemma4's embedding per layer, 0: none
  Activation activation = Activation::silu;
  RopePairing pairing = RopePairing::adjacent;
  std::vector<RopeTable> rope;
  std::vector<LayerConfig> layers;
  MoeConfig moe;
  DeltaNetConfig delta;

  /// Of each layer's KV.
  std::vector<KvShape> kv_shapes() const;
  /// The same with the rotation of keys; `path`: of the model's file.
  std::shared_ptr<const KvModel> kv_model(std::string path, std::uint64_t fingerprint) const;
  /// Bytes of KV (bf16) that `tokens` tokens need.
  Bytes kv_bytes(std::size_t tokens) const { return snug::kv_bytes(kv_shapes(), {}, tokens); }
  /// Bytes of recurrent state, whatever the length (kept twice, so that a step can be taken back).
  Bytes state_bytes() const;
  /// Width of what a layer's attention (or delta net) hands to its output projection.
  std::size_t mixer_size(const LayerConfig& layer) const {
    return layer.kind == LayerKind::delta_net ? delta.value_size() : std::size_t{layer.heads} * layer.v_dim;
  }
};

/// Throws FormatError; for an unknown `general.architecture` it lists the known ones.
ModelConfig read_config(const GgufFile& file);

}  // namespace snug
