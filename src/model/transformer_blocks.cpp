#include <algorithm>

#include "model/transformer.hpp"

namespace snug {

namespace {

/// Rows per task of cheap row-wise work: few rows are done by the caller, without waking anybody.
constexpr std::size_t kRowGrain = 8;

}  // namespace

Input Transformer::quantise(const float* x, std::size_t rows, std::size_t dim, std::byte* q8) const {
  Input input{x, dim, {q8, rows, dim}, rows};
  if (dim % 32 != 0) return input;  // such rows only meet floating weights
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) kernels().quantize(x + r * dim, input.q8, r);
  });
  return input;
}

Input Transformer::normalise(const float* x, std::size_t rows, const std::vector<float>& weight,
                             const RowMemory& into) {
  const std::size_t width = config_.width;
  Input input{into.f32, width, {into.q8, rows, width}, rows};
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* out = into.f32 + r * width;
      kernels().rms_norm(x + r * width, weight.data(), config_.norm_epsilon, width, out);
      if (width % 32 == 0) kernels().quantize(out, input.q8, r);
    }
  });
  return input;
}

void Transformer::rotate_and_store(std::uint32_t index, std::span<const RowRun> runs) {
  const LayerConfig& c = config_.layers[index];
  const Layer& layer = weights_.layers[index];
  const std::size_t q_dim = std::size_t{c.heads} * c.k_dim, kv_dim = std::size_t{c.kv_heads} * c.k_dim;
  const std::size_t pairs = config_.rope[c.rope].inverse_frequency.size();
  const std::size_t rows = runs.back().row + runs.back().count;
  const bool gated = layer.query.rows > q_dim, own_kv = c.kv_from == -1;
  const auto norm = [&](float* x, std::size_t heads, const std::vector<float>& weight) {
    if (weight.empty()) return;
    const std::size_t n = weight.size();
    for (std::size_t at = 0; at < heads * c.k_dim; at += n)
      kernels().rms_norm(x + at, weight.data(), config_.norm_epsilon, n, x + at);
  };
  const auto rotate = [&](float* x, std::size_t heads, std::size_t row) {
    const std::size_t at = (c.rope * rows + row) * a_->pairs;
    for (std::size_t h = 0; h < heads; ++h)
      kernels().rope(x + h * c.k_dim, a_->cos + at, a_->sin + at, pairs, config_.pairing == RopePairing::split_half);
  };
  const auto prepare = [&](std::size_t row) {
    float* q = a_->qkv + row * a_->qkv_stride;
    for (std::size_t h = 0; gated && h < c.heads; ++h) {
      std::copy_n(q + (2 * h + 1) * c.k_dim, c.k_dim, a_->gate + row * a_->gate_stride + h * c.k_dim);
      std::copy_n(q + 2 * h * c.k_dim, c.k_dim, q + h * c.k_dim);
    }
    norm(q, c.heads, layer.query_norm);
    if (!own_kv) return;
    float *k = q + layer.query.rows, *v = k + kv_dim;
    if (layer.value.rows == 0) std::copy_n(k, kv_dim, v);
    norm(k, c.kv_heads, layer.key_norm);
    for (std::size_t h = 0; config_.value_norm && h < c.kv_heads; ++h)
      kernels().rms_norm(v + h * c.v_dim, nullptr, config_.norm_epsilon, c.v_dim, v + h * c.v_dim);
  };
  if (on_kv_) {
    pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t row = from; row < to; ++row) prepare(row);
    });
    const float* k = own_kv ? a_->qkv + layer.query.rows : nullptr;
    on_kv_({own_kv ? index : static_cast<std::size_t>(c.kv_from), rows, a_->qkv_stride, a_->qkv, k,
            own_kv ? k + kv_dim : nullptr});
  }
  for (const RowRun& run : runs) {
    pool_.parallel_for(run.count, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t i = from; i < to; ++i) {
        const std::size_t row = run.row + i, position = run.position + i;
        if (!on_kv_) prepare(row);
        float* q = a_->qkv + row * a_->qkv_stride;
        if (pairs) rotate(q, c.heads, row);
        kernels().scale(q, config_.attention_scale, q_dim);
        if (!own_kv) continue;
        if (bf16_t* observed = run.kv->observed_queries(index, position)) kernels().to_bf16(q, q_dim, observed);
        float *k = q + layer.query.rows, *v = k + kv_dim;
        if (pairs) rotate(k, c.kv_heads, row);
        for (std::size_t h = 0; h < c.kv_heads; ++h) {
          kernels().store_key(k + h * c.k_dim, c.k_dim, position % kTileTokens,
                              run.kv->key_tile(index, h, position / kTileTokens));
          kernels().store_value(v + h * c.v_dim, c.v_dim, position % kTileTokens,
                                run.kv->value_tile(index, h, position / kTileTokens));
        }
      }
    });
  }
}

void Transformer::mix(std::uint32_t index, std::span<const RowRun> runs, std::size_t rows) {
  const Layer& layer = weights_.layers[index];
  if (config_.layers[index].kind == LayerKind::attention) return attend(index, runs, rows);
  const Input input = normalise(a_->x, rows, layer.attention_norm, a_->mixer_input);
  std::vector<RecurrentRun> recurrent;
  for (const RowRun& run : runs) recurrent.push_back({run.recurrent, run.row, run.count});
  delta_->run(layer.delta, index, recurrent, input, a_->mixed.f32);
  stats_.weight_bytes +=
      layer.delta.mixed.bytes() + layer.delta.gate.bytes() + layer.delta.beta.bytes() + layer.delta.alpha.bytes();
}

void Transformer::attend(std::uint32_t index, std::span<const RowRun> runs, std::size_t rows) {
  const LayerConfig& c = config_.layers[index];
  const Layer& layer = weights_.layers[index];
  const Input input = normalise(a_->x, rows, layer.attention_norm, a_->mixer_input);
  const std::size_t kv_dim = std::size_t{c.kv_heads} * c.k_dim;
  const Products::Job jobs[] = {{&layer.query, a_->qkv, a_->qkv_stride, false, 0, input},
                                {&layer.key, a_->qkv + layer.query.rows, a_->qkv_stride, false, 0, input},
                                {&layer.value, a_->qkv + layer.query.rows + kv_dim, a_->qkv_stride, false, 0, input}};
  products_->run(std::span(jobs, c.kv_from != -1 ? 1 : layer.value.rows == 0 ? 2 : 3));
  rotate_and_store(index, runs);
  attention_->run(c, c.kv_from == -1 ? index : static_cast<std::size_t>(c.kv_from), runs, a_->qkv, a_->qkv_stride,
                  config_.attention_softcap, layer.sinks, a_->mixed.f32);
  stats_.weight_bytes += layer.query.bytes() + layer.key.bytes() + layer.value.bytes();
  if (layer.query.rows == std::size_t{c.heads} * c.k_dim) return;  // no gate
  const std::size_t dim = config_.mixer_size(c);
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      kernels().sigmoid(a_->gate + r * a_->gate_stride, dim);
      kernels().multiply(a_->mixed.f32 + r * dim, a_->gate + r * a_->gate_stride, dim);
    }
  });
}

void Transformer::add_block(float* block, const std::vector<float>& post_norm, std::size_t rows) {
  const std::size_t width = config_.width;
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* row = block + r * width;
      kernels().rms_norm(row, post_norm.data(), config_.norm_epsilon, width, row);
      kernels().add(a_->x + r * width, row, width);
    }
  });
}

void Transformer::mixer_output(std::uint32_t index, std::size_t rows) {
  const Layer& layer = weights_.layers[index];
  const Input input = quantise(a_->mixed.f32, rows, config_.mixer_size(config_.layers[index]), a_->mixed.q8);
  const bool post = !layer.attention_post_norm.empty();
  const Products::Job job{&layer.output, post ? a_->mixer_result : a_->x, config_.width, !post, 0, input};
  products_->run(std::span(&job, 1));
  if (post) add_block(a_->mixer_result, layer.attention_post_norm, rows);
  stats_.weight_bytes += layer.output.bytes();
}

void Transformer::dense_hidden(const FeedForward& block, const Input& input, const RowMemory& hidden) {
  const Products::GatedJob gated{&block.gate, &block.up, 0, input, hidden.f32};
  products_->run_gated(std::span(&gated, 1), act_);
}

void Transformer::dense_block(const FeedForward& block, const Input& input, const RowMemory& hidden, float* out,
                              bool add) {
  dense_hidden(block, input, hidden);
  const Products::Job down{&block.down, out, config_.width,
                           add,         0,   quantise(hidden.f32, input.rows, block.gate.rows, hidden.q8)};
  products_->run(std::span(&down, 1));
  stats_.weight_bytes += block.gate.bytes() + block.up.bytes() + block.down.bytes();
}

void Transformer::shared_expert(const Layer& layer, const Input& input, std::size_t rows) {
  const std::size_t width = config_.width;
  dense_block(layer.shared, input, a_->shared_hidden, a_->shared_result, false);
  for (std::size_t r = 0; r < rows; ++r) {
    float weight = 1.0f;
    if (!layer.shared_gate.empty()) {
      weight = kernels().dot(layer.shared_gate.data(), input.f32 + r * input.stride, width);
      kernels().sigmoid(&weight, 1);
    }
    kernels().axpy(a_->x + r * width, weight, a_->shared_result + r * width, width);
  }
}

void Transformer::dense_beside_experts(const Layer& layer, std::size_t rows) {
  const std::size_t width = config_.width;
  const auto norm_all = [&](float* x, const std::vector<float>& weight) {
    for (std::size_t r = 0; r < rows; ++r)
      kernels().rms_norm(x + r * width, weight.data(), config_.norm_epsilon, width, x + r * width);
  };
  dense_block(layer.dense, normalise(a_->x, rows, layer.ffn_norm, a_->ffn_input), a_->hidden, a_->ffn_result, false);
  norm_all(a_->ffn_result, layer.dense_post_norm);
  moe_->route(layer, normalise(a_->x, rows, layer.router_norm, a_->ffn_input));
  std::fill_n(a_->experts_result, rows * width, 0.0f);
  const Input input = normalise(a_->x, rows, layer.experts_norm, a_->ffn_input);
  stats_.weight_bytes += moe_->run(layer, input, act_, a_->experts_result);
  norm_all(a_->experts_result, layer.experts_post_norm);
  kernels().add(a_->ffn_result, a_->experts_result, rows * width);
  add_block(a_->ffn_result, layer.ffn_post_norm, rows);
}

void Transformer::feed_forward(std::uint32_t index, std::size_t rows) {
  const Layer& layer = weights_.layers[index];
  if (config_.layers[index].moe) {
    stats_.weight_bytes += layer.router.bytes();
    if (!layer.experts_norm.empty()) return dense_beside_experts(layer, rows);
    const Input input = normalise(a_->x, rows, layer.ffn_norm, a_->ffn_input);
    moe_->route(layer, input);
    if (rows == 1 && index + 1 < config_.layer_count && config_.layers[index + 1].moe)
      moe_->expect(weights_.layers[index + 1], a_->x);
    stats_.weight_bytes += moe_->run(layer, input, act_, a_->x);
    if (layer.shared.down.rows) shared_expert(layer, input, rows);
    return;
  }
  const bool post = !layer.ffn_post_norm.empty();
  const Input input = normalise(a_->x, rows, layer.ffn_norm, a_->ffn_input);
  float* out = post ? a_->ffn_result : a_->x;
  if (sparse_ && decoding_) {
    const bool truth = sparse_->options().oracle || sparse_->options().measure;
    if (truth) dense_hidden(layer.dense, input, a_->hidden);
    stats_.weight_bytes += sparse_->run(index, input.f32, truth ? a_->hidden.f32 : nullptr, out, !post);
  } else {
    dense_block(layer.dense, input, a_->hidden, out, !post);
  }
  if (on_ffn_) on_ffn_(index, rows, input.f32, a_->hidden.f32);
  if (post) add_block(a_->ffn_result, layer.ffn_post_norm, rows);
}

void Transformer::per_layer_block(std::uint32_t index, std::size_t rows) {
  const Layer& layer = weights_.layers[index];
  const std::size_t each = config_.per_layer_input, all = each * config_.layer_count;
  const RowMemory& hidden = a_->per_layer_hidden;
  const Products::Job gate{
      &layer.per_layer_gate, hidden.f32, each, false, 0, quantise(a_->x, rows, config_.width, a_->per_layer_x)};
  products_->run(std::span(&gate, 1));
  for (std::size_t r = 0; r < rows; ++r) {
    float* x = hidden.f32 + r * each;
    kernels().gelu_mul(x, a_->per_layer + r * all + index * each, each, x);
  }
  const Products::Job out{&layer.per_layer_output,
                          a_->per_layer_result,
                          config_.width,
                          false,
                          0,
                          quantise(hidden.f32, rows, each, hidden.q8)};
  products_->run(std::span(&out, 1));
  add_block(a_->per_layer_result, layer.per_layer_norm, rows);
  stats_.weight_bytes += layer.per_layer_gate.bytes() + layer.per_layer_output.bytes();
}

}  // namespace snug
