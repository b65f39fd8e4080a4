#include "model/layer.hpp"

#include "base/error.hpp"
#include "model/rope.hpp"

namespace snug {

namespace {

class Mapper {
public:
  Mapper(const GgufFile& file, const ModelConfig& config, ResidentSource& source, bool as_f32)
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
    const std::size_t q = std::size_t{c.heads} * c.k_dim, k = std::size_t{c.kv_heads} * c.k_dim,
                      v = std::size_t{c.kv_heads} * c.v_dim;
    Layer l;
    l.attention_norm = vector(p + "attn_norm.weight", width);
    if (has(p + "attn_qkv.weight")) {
      const Linear fused = linear(p + "attn_qkv", width, q + k + v);
      l.query = part(fused, p + "attn_qkv", 0, q);
      l.key = part(fused, p + "attn_qkv", q, k);
      l.value = part(fused, p + "attn_qkv", q + k, v);
    } else {
      l.query = linear(p + "attn_q", width, q);
      l.key = linear(p + "attn_k", width, k);
      l.value = linear(p + "attn_v", width, v);
    }
    l.output = linear(p + "attn_output", std::size_t{c.heads} * c.v_dim, width);
    if (has(p + "attn_q_norm.weight")) {
      // olmoe normalises over all heads at once.
      const bool whole_row = tensor(p + "attn_q_norm.weight").columns() == q && q != c.k_dim;
      l.query_norm = vector(p + "attn_q_norm.weight", whole_row ? q : c.k_dim);
      l.key_norm = vector(p + "attn_k_norm.weight", whole_row ? k : c.k_dim);
    }
    l.sinks = optional(p + "attn_sinks.weight", c.heads);

    // Where there is no ffn_norm, post_attention_norm is the norm before the feed-forward block (gpt-oss).
    const bool own_norm = has(p + "ffn_norm.weight");
    l.ffn_norm = vector(p + (own_norm ? "ffn_norm.weight" : "post_attention_norm.weight"), width);
    if (own_norm) l.attention_post_norm = optional(p + "post_attention_norm.weight", width);
    l.ffn_post_norm = optional(p + "post_ffw_norm.weight", width);

    if (c.moe) {
      const MoeConfig& m = config_.moe;
      l.router = linear(p + "ffn_gate_inp", width, m.experts);
      l.experts = {linear(p + "ffn_gate_exps", width, m.ffn, m.experts),
                   linear(p + "ffn_up_exps", width, m.ffn, m.experts),
                   linear(p + "ffn_down_exps", m.ffn, width, m.experts)};
    } else if (has(p + "ffn_gate.weight")) {
      l.dense = {linear(p + "ffn_gate", width, c.ffn), linear(p + "ffn_up", width, c.ffn),
                 linear(p + "ffn_down", c.ffn, width)};
    } else {
      const Linear fused = linear(p + "ffn_up", width, std::size_t{2} * c.ffn);
      l.dense = {part(fused, p + "ffn_up", 0, c.ffn), part(fused, p + "ffn_up", c.ffn, c.ffn),
                 linear(p + "ffn_down", c.ffn, width)};
    }
    return l;
  }

private:
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
  ResidentSource& source_;
  bool as_f32_;
};

}  // namespace

ModelWeights map_weights(const GgufFile& file, const ModelConfig& config, ResidentSource& source, bool as_f32) {
  Mapper mapper(file, config, source, as_f32);
  ModelWeights weights;
  weights.embedding = mapper.linear("token_embd", config.width, config.vocab_size);
  weights.output =
      mapper.has("output.weight") ? mapper.linear("output", config.width, config.vocab_size) : weights.embedding;
  weights.output_norm = mapper.vector("output_norm.weight", config.width);
  for (std::uint32_t i = 0; i < config.layer_count; ++i) weights.layers.push_back(mapper.layer(i));
  return weights;
}

}  // namespace snug
