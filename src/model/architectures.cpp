// The table of architectures and the reading of their metadata. A dense architecture is a row; biases, query/key norms,
// norms after a block, sinks, fused or shared tensors need no flag: they are used where the file has them.

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.hpp"
#include "kernels/kv_tile.hpp"
#include "model/config.hpp"
#include "model/rope.hpp"

namespace snug {

namespace {

struct Architecture {
  std::string_view name;
  RopePairing pairing = RopePairing::split_half;
  Activation activation = Activation::silu;
  bool scaled_embedding = false;    ///< times sqrt(width)
  std::uint32_t full_every = 0;     ///< n: layers n-1, 2n-1, ... see everything, the others the window
  float window_rope_base = 0;       ///< windowed layers rotate with this base, unscaled; 0: like the others
  std::uint32_t no_rope_every = 0;  ///< n: layers n-1, 2n-1, ... do not rotate
  Gating gating = Gating::softmax;
  bool normalise_experts = true;  ///< chosen experts' weights are made to add up to 1
  float attention_scale = 0;      ///< 0: 1 / sqrt(head dimension)
  bool value_norm = false;
  bool interleaved_delta = false;  ///< DeltaNetConfig::interleaved
};

constexpr auto kAdjacent = RopePairing::adjacent;

constexpr Architecture kArchitectures[] = {
    {.name = "llama", .pairing = kAdjacent},
    {.name = "arcee", .pairing = kAdjacent, .activation = Activation::relu_squared},
    {.name = "smollm3", .pairing = kAdjacent, .no_rope_every = 4},
    {.name = "qwen2"},
    {.name = "qwen3"},
    {.name = "qwen3moe"},
    {.name = "olmoe", .normalise_experts = false},
    {.name = "phi3"},
    {.name = "gemma3",
     .activation = Activation::gelu,
     .scaled_embedding = true,
     .full_every = 6,
     .window_rope_base = 10000.0f},
    {.name = "gemma4",
     .activation = Activation::gelu,
     .scaled_embedding = true,
     .attention_scale = 1.0f,
     .value_norm = true},
    {.name = "qwen35"},
    {.name = "qwen35moe"},
    {.name = "qwen3next", .interleaved_delta = true},
    {.name = "gpt-oss", .activation = Activation::swiglu_oai, .full_every = 2, .gating = Gating::softmax_of_chosen},
};

const Architecture& find_architecture(const GgufFile& file) {
  const auto name = file.get_string("general.architecture");
  if (!name) fail<FormatError>("{}: metadata general.architecture is missing", file.path());
  std::string known;
  for (const Architecture& a : kArchitectures) {
    if (a.name == *name) return a;
    known += known.empty() ? "" : ", ";
    known += a.name;
  }
  fail<FormatError>("{}: architecture '{}' is not supported; known are {}", file.path(), *name, known);
}

/// Reads `{arch}.*` with clear errors.
class Keys {
public:
  Keys(const GgufFile& file, std::string_view architecture) : file_(file), prefix_(std::string(architecture) + ".") {}

  std::uint32_t count(std::string_view key, std::uint64_t least, std::uint64_t most) const {
    const auto value = file_.get_uint(prefix_ + std::string(key));
    if (!value) fail<FormatError>("{}: metadata {}{} is missing", file_.path(), prefix_, key);
    return checked(key, *value, least, most);
  }
  std::uint32_t count_or(std::string_view key, std::uint32_t otherwise, std::uint64_t most) const {
    const auto value = file_.get_uint(prefix_ + std::string(key));
    return value ? checked(key, *value, 0, most) : otherwise;
  }
  float number_or(std::string_view key, float otherwise) const {
    return static_cast<float>(file_.get_float(prefix_ + std::string(key)).value_or(otherwise));
  }
  /// One number for all layers, or an array with one per layer.
  std::vector<std::uint32_t> per_layer(std::string_view key, std::size_t layers, std::uint64_t least,
                                       std::uint64_t most, std::uint32_t otherwise) const {
    const GgufValue* value = file_.find(prefix_ + std::string(key));
    if (!value) return std::vector<std::uint32_t>(layers, otherwise);
    if (!std::holds_alternative<GgufArray>(*value)) return std::vector<std::uint32_t>(layers, count(key, least, most));
    const std::vector<double> numbers = *file_.get_numbers(prefix_ + std::string(key));
    if (numbers.size() < layers)
      fail<FormatError>("{}: metadata {}{} has {} entries for {} layers", file_.path(), prefix_, key, numbers.size(),
                        layers);
    std::vector<std::uint32_t> result;
    for (std::size_t i = 0; i < layers; ++i) {
      if (numbers[i] < 0) fail<FormatError>("{}: metadata {}{} has a negative entry", file_.path(), prefix_, key);
      result.push_back(checked(key, static_cast<std::uint64_t>(numbers[i]), least, most));
    }
    return result;
  }

  std::string name(std::string_view key) const { return prefix_ + std::string(key); }

private:
  std::uint32_t checked(std::string_view key, std::uint64_t value, std::uint64_t least, std::uint64_t most) const {
    if (value < least || value > most)
      fail<FormatError>("{}: metadata {}{} is {}, expected {} to {}", file_.path(), prefix_, key, value, least, most);
    return static_cast<std::uint32_t>(value);
  }
  const GgufFile& file_;
  std::string prefix_;
};

constexpr std::uint64_t kMaxWidth = 1 << 20, kMaxLayers = 4096, kMaxHeads = 4096, kMaxHeadDim = kMostHeadDim,
                        kMaxContext = 1u << 30;

void read_layers(const GgufFile& file, const Architecture& architecture, const Keys& keys, ModelConfig& c) {
  const auto heads = keys.per_layer("attention.head_count", c.layer_count, 1, kMaxHeads, 0);
  const auto kv_heads = keys.per_layer("attention.head_count_kv", c.layer_count, 1, kMaxHeads, 0);
  const auto ffn = keys.per_layer("feed_forward_length", c.layer_count, 0, kMaxWidth * 16, 0);
  const std::uint32_t window = keys.count_or("attention.sliding_window", 0, kMaxContext);
  const auto windowed = keys.per_layer("attention.sliding_window_pattern", c.layer_count, 0, 1, 0);
  const bool has_pattern = file.find(keys.name("attention.sliding_window_pattern")) != nullptr;
  const std::uint32_t sharing = keys.count_or("attention.shared_kv_layers", 0, c.layer_count - 1);
  c.layers.resize(c.layer_count);
  for (std::uint32_t i = 0; i < c.layer_count; ++i) {
    LayerConfig& layer = c.layers[i];
    layer.heads = heads[i];
    layer.kv_heads = kv_heads[i] ? kv_heads[i] : heads[i];
    if (layer.heads == 0 || layer.heads % layer.kv_heads != 0)
      fail<FormatError>("{}: layer {} has {} heads over {} KV heads", file.path(), i, layer.heads, layer.kv_heads);
    const bool full =
        has_pattern ? !windowed[i] : architecture.full_every == 0 || (i + 1) % architecture.full_every == 0;
    layer.window = full ? 0 : window;
    const std::uint32_t dim = c.width / layer.heads;
    layer.k_dim = keys.count_or("attention.key_length", dim, kMaxHeadDim);
    layer.v_dim = keys.count_or("attention.value_length", dim, kMaxHeadDim);
    if (layer.window) {
      layer.k_dim = keys.count_or("attention.key_length_swa", layer.k_dim, kMaxHeadDim);
      layer.v_dim = keys.count_or("attention.value_length_swa", layer.v_dim, kMaxHeadDim);
    }
    if (layer.k_dim == 0 || layer.v_dim == 0 || layer.k_dim % 16 != 0 || layer.v_dim % 16 != 0)
      fail<FormatError>("{}: head dimensions {} and {} are not multiples of 16", file.path(), layer.k_dim, layer.v_dim);
    if (i >= c.layer_count - sharing)
      layer.kv_from = static_cast<std::int32_t>(c.layer_count - sharing) - (layer.window ? 2 : 1);
    if (file.find_tensor(fmt::format("blk.{}.ssm_a", i))) {
      layer.kind = LayerKind::delta_net;
      layer.kv_heads = 0;
    }
    layer.ffn = ffn[i];
    layer.moe = c.moe.experts > 0 && file.find_tensor(fmt::format("blk.{}.ffn_gate_inp.weight", i));
  }
}

/// Layers without keys and values of their own must find some of their kind.
void check_sharing(const GgufFile& file, const ModelConfig& c) {
  for (const LayerConfig& layer : c.layers) {
    if (layer.kv_from == -1) continue;
    const LayerConfig* from = layer.kv_from < 0 ? nullptr : &c.layers[static_cast<std::size_t>(layer.kv_from)];
    if (!from || from->kv_from != -1 || from->kind != LayerKind::attention || from->kv_heads != layer.kv_heads ||
        from->k_dim != layer.k_dim || from->v_dim != layer.v_dim || from->window != layer.window)
      fail<FormatError>("{}: layers that share keys and values do not match", file.path());
  }
}

DeltaNetConfig read_delta(const GgufFile& file, const Architecture& architecture, const Keys& keys) {
  DeltaNetConfig d;
  d.conv = keys.count("ssm.conv_kernel", 1, 64);
  d.key_heads = keys.count("ssm.group_count", 1, kMaxHeads);
  d.value_heads = keys.count("ssm.time_step_rank", 1, kMaxHeads);
  d.k_dim = keys.count("ssm.state_size", 1, kMaxHeadDim);
  const std::uint32_t inner = keys.count("ssm.inner_size", 1, kMaxWidth);
  d.v_dim = inner / d.value_heads;
  d.interleaved = architecture.interleaved_delta;
  if (inner % d.value_heads || d.value_heads % d.key_heads || d.k_dim % 16 || d.v_dim == 0 || d.v_dim % 16)
    fail<FormatError>("{}: metadata {}ssm.* do not fit together", file.path(), keys.name(""));
  return d;
}

void read_rope(const GgufFile& file, const Architecture& architecture, const Keys& keys, ModelConfig& c) {
  const auto is = [&](bool window) {
    const auto found = std::find_if(c.layers.begin(), c.layers.end(), [&](const LayerConfig& l) {
      return l.kind == LayerKind::attention && (l.window > 0) == window;
    });
    return found == c.layers.end() ? nullptr : &*found;
  };
  const LayerConfig *full = is(false), *windowed = is(true);
  c.rope.push_back(scaled_rope(file, c.architecture, full ? full->k_dim : c.layers.front().k_dim));
  const float base = keys.number_or("rope.freq_base_swa", architecture.window_rope_base);
  c.rope.push_back(windowed && base > 0 ? plain_rope(windowed->k_dim, base) : RopeTable());
  c.rope.push_back({});
  for (std::uint32_t i = 0; i < c.layer_count; ++i) {
    if (base > 0 && c.layers[i].window) c.layers[i].rope = 1;
    if (architecture.no_rope_every && (i + 1) % architecture.no_rope_every == 0) c.layers[i].rope = 2;
  }
}

}  // namespace

ModelConfig read_config(const GgufFile& file) {
  const Architecture& architecture = find_architecture(file);
  const Keys keys(file, architecture.name);
  ModelConfig c;
  c.architecture = architecture.name;
  c.name = std::string(file.get_string("general.name").value_or(""));
  c.activation = architecture.activation;
  c.pairing = architecture.pairing;
  // Blocks that predict further tokens stand at the end and are not used.
  const std::uint32_t blocks = keys.count("block_count", 1, kMaxLayers);
  c.layer_count = blocks - keys.count_or("nextn_predict_layers", 0, blocks - 1);
  c.width = keys.count("embedding_length", 1, kMaxWidth);
  c.trained_context = keys.count("context_length", 1, kMaxContext);
  c.norm_epsilon = keys.number_or("attention.layer_norm_rms_epsilon", 1e-5f);
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2)
    fail<FormatError>("{}: tensor token_embd.weight is missing or not a matrix", file.path());
  if (embedding->shape[1] > (1u << 24))
    fail<FormatError>("{}: a vocabulary of {} is too large", file.path(), embedding->shape[1]);
  c.vocab_size = static_cast<std::uint32_t>(embedding->shape[1]);
  if (architecture.scaled_embedding) c.embedding_scale = std::sqrt(static_cast<float>(c.width));
  c.logit_softcap = keys.number_or("final_logit_softcapping", 0);
  c.attention_softcap = keys.number_or("attn_logit_softcapping", 0);

  c.moe.experts = keys.count_or("expert_count", 0, 4096);
  if (c.moe.experts) {
    c.moe.used = keys.count("expert_used_count", 1, c.moe.experts);
    c.moe.ffn =
        keys.count_or("expert_feed_forward_length", keys.count_or("feed_forward_length", 0, kMaxWidth), kMaxWidth);
    c.moe.shared_ffn = keys.count_or("expert_shared_feed_forward_length", 0, kMaxWidth);
    c.moe.gating = architecture.gating;
    c.moe.normalise = architecture.normalise_experts;
    const float scale = keys.number_or("expert_weights_scale", 1.0f);
    c.moe.scale = scale == 0 ? 1.0f : scale;
  }
  read_layers(file, architecture, keys, c);
  if (std::any_of(c.layers.begin(), c.layers.end(),
                  [](const LayerConfig& l) { return l.kind == LayerKind::delta_net; }))
    c.delta = read_delta(file, architecture, keys);
  check_sharing(file, c);
  read_rope(file, architecture, keys, c);
  c.value_norm = architecture.value_norm;
  c.per_layer_input = keys.count_or("embedding_length_per_layer_input", 0, kMaxWidth);
  c.attention_scale = keys.number_or("attention.scale", architecture.attention_scale);
  if (c.attention_scale == 0) {
    // gemma3 27B alone scales by the width per head instead of the head dimension.
    const bool by_width = c.architecture == "gemma3" && c.layer_count == 62;
    c.attention_scale =
        1.0f / std::sqrt(static_cast<float>(by_width ? c.width / c.layers[0].heads : c.layers[0].k_dim));
  }
  return c;
}

std::vector<KvShape> ModelConfig::kv_shapes() const {
  std::vector<KvShape> shapes;
  for (const LayerConfig& l : layers)
    shapes.push_back(
        {l.kv_from == -1 ? l.kv_heads : 0, l.k_dim, l.v_dim, l.window, l.kv_heads > 0 ? l.heads / l.kv_heads : 1});
  return shapes;
}

std::shared_ptr<const KvModel> ModelConfig::kv_model(std::string path, std::uint64_t fingerprint) const {
  auto model = std::make_shared<KvModel>();
  model->shapes = kv_shapes();
  model->path = std::move(path);
  model->fingerprint = fingerprint;
  for (const LayerConfig& l : layers)
    model->ropes.push_back(
        {rope[l.rope].inverse_frequency, rope[l.rope].magnitude, pairing == RopePairing::split_half});
  return model;
}

Bytes ModelConfig::state_bytes() const {
  const auto layers_with =
      std::count_if(layers.begin(), layers.end(), [](const LayerConfig& l) { return l.kind == LayerKind::delta_net; });
  return layers_with == 0 ? 0 : 2 * static_cast<Bytes>(layers_with) * delta.state_size() * sizeof(float);
}

}  // namespace snug
