#include "model/layer.hpp"

#include <array>
#include <cmath>

#include "base/error.hpp"
#include "model/rope.hpp"

namespace snug {

namespace {

class Mapper {
public:
  Mapper(const GgufFile& file, const ModelConfig& config, FileSource& source, bool as_f32)
      : file_(file), config_(config), source_(source), as_f32_(as_f32) {}

  const GgufTensor& tensor(const std::string& name) const {
    const GgufTensor* found = file_.find_tensor(name);
    if (!found) fail<FormatError>("{}: tensor {} is missing", file_.path(), name);
    return *found;
  }

  /// The matrix NAME.weight [cols, rows(, experts)] with NAME.bias if there is one.
  Linear linear(const std::string& name, std::size_t cols, std::size_t rows, std::size_t experts = 1) {
    Linear result = whole(name, cols, rows, experts);
    result.bias = optional(name + ".bias", rows * experts);
    return result;
  }

  /// Rows [row_begin, row_begin + rows) of a fused matrix.
  Linear part(const Linear& fused, const std::string& name, std::size_t row_begin, std::size_t rows) const {
    if (row_begin % kTileRows != 0)
      fail<FormatError>("{}: the parts of tensor {} do not begin at multiples of {}", file_.path(), name, kTileRows);
    Linear result = fused;
    result.group_begin = row_begin / kTileRows;
    result.rows = rows;
    if (!fused.bias.empty())
      result.bias.assign(fused.bias.begin() + static_cast<std::ptrdiff_t>(row_begin),
                         fused.bias.begin() + static_cast<std::ptrdiff_t>(row_begin + rows));
    return result;
  }

  std::vector<float> vector(const std::string& name, std::size_t count) const {
    return read_vector(file_, tensor(name), count);
  }
  std::vector<float> optional(const std::string& name, std::size_t count) const {
    return file_.find_tensor(name) ? vector(name, count) : std::vector<float>();
  }
  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  Layer layer(std::uint32_t index) {
    const LayerConfig& c = config_.layers[index];
    const std::string p = fmt::format("blk.{}.", index);
    const std::size_t width = config_.width;
    Layer l;
    l.attention_norm = vector(p + "attn_norm.weight", width);
    if (c.kind == LayerKind::delta_net)
      delta_net(l, p);
    else
      attention(l, c, p);
    // Where there is no ffn_norm, post_attention_norm is the norm before the feed-forward block (gpt-oss, qwen3.5).
    const bool own_norm = has(p + "ffn_norm.weight");
    l.ffn_norm = vector(p + (own_norm ? "ffn_norm.weight" : "post_attention_norm.weight"), width);
    if (own_norm) l.attention_post_norm = optional(p + "post_attention_norm.weight", width);
    l.ffn_post_norm = optional(p + "post_ffw_norm.weight", width);
    if (c.moe) experts(l, p);
    if (!c.moe || !l.experts_norm.empty() || has(p + "ffn_down.weight")) dense(l, c, p);
    if (has(p + "layer_output_scale.weight")) l.output_scale = vector(p + "layer_output_scale.weight", 1)[0];
    if (config_.per_layer_input) {
      l.per_layer_gate = linear(p + "inp_gate", width, config_.per_layer_input);
      l.per_layer_output = linear(p + "proj", config_.per_layer_input, width);
      l.per_layer_norm = vector(p + "post_norm.weight", width);
    }
    return l;
  }

private:
  void attention(Layer& l, const LayerConfig& c, const std::string& p) {
    const std::size_t width = config_.width;
    const std::size_t q = std::size_t{c.heads} * c.k_dim, k = std::size_t{c.kv_heads} * c.k_dim,
                      v = std::size_t{c.kv_heads} * c.v_dim;
    if (has(p + "attn_qkv.weight")) {
      const Linear fused = linear(p + "attn_qkv", width, q + k + v);
      l.query = part(fused, p + "attn_qkv", 0, q);
      l.key = part(fused, p + "attn_qkv", q, k);
      l.value = part(fused, p + "attn_qkv", q + k, v);
    } else {
      const bool gated = tensor(p + "attn_q.weight").rows() == 2 * q;
      l.query = linear(p + "attn_q", width, gated ? 2 * q : q);
      if (c.kv_from == -1) {
        l.key = linear(p + "attn_k", width, k);
        if (has(p + "attn_v.weight") || k != v) l.value = linear(p + "attn_v", width, v);
      }
    }
    l.output = linear(p + "attn_output", std::size_t{c.heads} * c.v_dim, width);
    if (has(p + "attn_q_norm.weight")) {
      // olmoe normalises over all heads at once.
      const bool whole_row = tensor(p + "attn_q_norm.weight").columns() == q && q != c.k_dim;
      l.query_norm = vector(p + "attn_q_norm.weight", whole_row ? q : c.k_dim);
      if (c.kv_from == -1) l.key_norm = vector(p + "attn_k_norm.weight", whole_row ? k : c.k_dim);
    }
    l.sinks = optional(p + "attn_sinks.weight", c.heads);
  }

  void delta_net(Layer& l, const std::string& p) {
    const DeltaNetConfig& d = config_.delta;
    const std::size_t width = config_.width, size = d.conv_size();
    l.delta.mixed = linear(p + "attn_qkv", width, size);
    l.delta.gate = linear(p + "attn_gate", width, d.value_size());
    if (has(p + "ssm_ba.weight")) {
      l.delta.beta = linear(p + "ssm_ba", width, std::size_t{2} * d.value_heads);
    } else {
      l.delta.beta = linear(p + "ssm_beta", width, d.value_heads);
      l.delta.alpha = linear(p + "ssm_alpha", width, d.value_heads);
    }
    const std::vector<float> conv = vector(p + "ssm_conv1d.weight", size * d.conv);
    l.delta.conv.resize(conv.size());
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t t = 0; t < d.conv; ++t) l.delta.conv[t * size + i] = conv[i * d.conv + t];
    l.delta.step_bias = vector(p + "ssm_dt.bias", d.value_heads);
    l.delta.decay = vector(p + "ssm_a", d.value_heads);
    l.delta.norm = vector(p + "ssm_norm.weight", d.v_dim);
    l.output = linear(p + "ssm_out", d.value_size(), width);
  }

  void experts(Layer& l, const std::string& p) {
    const MoeConfig& m = config_.moe;
    const std::size_t width = config_.width;
    l.router = linear(p + "ffn_gate_inp", width, m.experts);
    if (has(p + "ffn_gate_up_exps.weight")) {
      const Linear fused = linear(p + "ffn_gate_up_exps", width, std::size_t{2} * m.ffn, m.experts);
      l.experts.gate = part(fused, p + "ffn_gate_up_exps", 0, m.ffn);
      l.experts.up = part(fused, p + "ffn_gate_up_exps", m.ffn, m.ffn);
    } else {
      l.experts.gate = linear(p + "ffn_gate_exps", width, m.ffn, m.experts);
      l.experts.up = linear(p + "ffn_up_exps", width, m.ffn, m.experts);
    }
    l.experts.down = linear(p + "ffn_down_exps", m.ffn, width, m.experts);
    l.expert_scale = optional(p + "ffn_down_exps.scale", m.experts);
    l.router_norm = optional(p + "ffn_gate_inp.scale", width);
    for (float& w : l.router_norm) w /= std::sqrt(static_cast<float>(width));
    if (has(p + "pre_ffw_norm_2.weight")) {
      l.experts_norm = vector(p + "pre_ffw_norm_2.weight", width);
      l.dense_post_norm = vector(p + "post_ffw_norm_1.weight", width);
      l.experts_post_norm = vector(p + "post_ffw_norm_2.weight", width);
    }
    if (m.shared_ffn && has(p + "ffn_up_shexp.weight")) {
      l.shared = {linear(p + "ffn_gate_shexp", width, m.shared_ffn), linear(p + "ffn_up_shexp", width, m.shared_ffn),
                  linear(p + "ffn_down_shexp", m.shared_ffn, width)};
      l.shared_gate = optional(p + "ffn_gate_inp_shexp.weight", width);
    }
  }

  void dense(Layer& l, const LayerConfig& c, const std::string& p) {
    const std::size_t width = config_.width;
    if (config_.activation == Activation::relu_squared) {
      l.dense = {linear(p + "ffn_up", width, c.ffn), {}, linear(p + "ffn_down", c.ffn, width)};
    } else if (has(p + "ffn_gate.weight")) {
      l.dense = {linear(p + "ffn_gate", width, c.ffn), linear(p + "ffn_up", width, c.ffn),
                 linear(p + "ffn_down", c.ffn, width)};
    } else {
      const Linear fused = linear(p + "ffn_up", width, std::size_t{2} * c.ffn);
      l.dense = {part(fused, p + "ffn_up", 0, c.ffn), part(fused, p + "ffn_up", c.ffn, c.ffn),
                 linear(p + "ffn_down", c.ffn, width)};
    }
  }

  Linear whole(const std::string& name, std::size_t cols, std::size_t rows, std::size_t experts) {
    const GgufTensor& t = tensor(name + ".weight");
    const std::uint64_t actual[] = {t.columns(), t.shape.size() > 1 ? t.shape[1] : 1,
                                    t.shape.size() > 2 ? t.shape[2] : 1};
    if (actual[0] != cols || actual[1] != rows || actual[2] != experts || t.shape.size() > 3)
      fail<FormatError>("{}: tensor {} is {} x {} x {}, expected {} x {} x {}", file_.path(), t.name, actual[0],
                        actual[1], actual[2], cols, rows, experts);
    Linear result;
    result.weight = source_.add(file_, t, as_f32_);
    result.rows = rows;
    return result;
  }

  const GgufFile& file_;
  const ModelConfig& config_;
  FileSource& source_;
  bool as_f32_;
};

}  // namespace

ModelWeights map_weights(const GgufFile& file, const ModelConfig& config, FileSource& source, bool as_f32) {
  Mapper mapper(file, config, source, as_f32);
  ModelWeights weights;
  weights.embedding = mapper.linear("token_embd", config.width, config.vocab_size);
  weights.output =
      mapper.has("output.weight") ? mapper.linear("output", config.width, config.vocab_size) : weights.embedding;
  source.looked_up(weights.embedding.weight, weights.output.weight.id != weights.embedding.weight.id);
  weights.output_norm = mapper.vector("output_norm.weight", config.width);
  if (const std::size_t each = config.per_layer_input) {
    const std::size_t all = each * config.layer_count;
    weights.per_layer_embedding = mapper.linear("per_layer_token_embd", all, config.vocab_size);
    source.looked_up(weights.per_layer_embedding.weight, true);
    weights.per_layer_projection = mapper.linear("per_layer_model_proj", config.width, all);
    weights.per_layer_norm = mapper.vector("per_layer_proj_norm.weight", each);
  }
  std::size_t expert_layers = 0;
  for (std::uint32_t i = 0; i < config.layer_count; ++i) {
    Layer& layer = weights.layers.emplace_back(mapper.layer(i));
    if (!config.layers[i].moe) continue;
    layer.expert_layer = expert_layers++;
    const FeedForward& experts = layer.experts;
    source.experts_of_layer(std::array{experts.gate.weight, experts.up.weight, experts.down.weight});
  }
  source.prepare();
  return weights;
}

}  // namespace snug
