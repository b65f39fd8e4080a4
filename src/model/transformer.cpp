#include "model/transformer.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/error.hpp"
#include "model/rope.hpp"

namespace snug {

namespace {

constexpr float kOaiAlpha = 1.702f, kOaiLimit = 7.0f;  // gpt-oss's clamped SwiGLU

void swiglu_oai(const float* gate, const float* up, std::size_t n, float* out) {
  kernels().swiglu_oai(gate, up, kOaiAlpha, kOaiLimit, n, out);
}

Products::Act activation(Activation a) {
  switch (a) {
    case Activation::silu:
      return kernels().silu_mul;
    case Activation::gelu:
      return kernels().gelu_mul;
    case Activation::swiglu_oai:
      return swiglu_oai;
  }
  return nullptr;
}

/// Rows per task of cheap row-wise work: few rows are done by the caller, without waking anybody.
constexpr std::size_t kRowGrain = 8;

}  // namespace

std::unique_ptr<Model> Model::load(const std::string& path, Ledger& ledger, ThreadPool& pool, ModelOptions options) {
  return std::make_unique<Transformer>(GgufFile::open(path), ledger, pool, options);
}

std::size_t TransformerSequence::truncate(std::size_t length) {
  if (length >= length_) return length_;
  length_ = length >= kv.oldest_restorable(length_) ? length : 0;
  kv.trim(length_);
  return length_;
}

void TransformerSequence::advance(std::size_t tokens) {
  length_ += tokens;
  kv.trim(length_);
}

Transformer::Transformer(GgufFile file, Ledger& ledger, ThreadPool& pool, ModelOptions options)
    : file_(std::move(file)),
      config_(read_config(file_)),
      options_(options),
      pool_(pool),
      tokenizer_(Tokenizer::from_gguf(file_)),
      source_(ledger, pool) {
  tokenizer_memory_ = ledger.reserve(Tag::tokenizer, tokenizer_->memory_bytes());
  weights_ = map_weights(file_, config_, source_, options_.reference);
  source_.load();
  std::vector<KvShape> shapes;
  std::size_t widest = config_.width;
  for (const LayerConfig& l : config_.layers) {
    shapes.push_back({l.kv_heads, l.k_dim, l.v_dim, l.window});
    widest = std::max({widest, std::size_t{l.ffn}, std::size_t{l.heads} * l.v_dim});
  }
  widest = std::max(widest, std::size_t{config_.moe.ffn});
  pools_ = std::make_unique<KvPools>(ledger, std::move(shapes));
  products_ = std::make_unique<Products>(ledger, pool, source_, options_.max_rows, widest);
  attention_ = std::make_unique<Attention>(ledger, pool, config_, options_.max_rows);
  if (config_.moe.experts) moe_ = std::make_unique<MixtureOfExperts>(ledger, *products_, config_, options_.max_rows);
  plan_activations(ledger);
}

void Transformer::plan_activations(Ledger& ledger) {
  for (const LayerConfig& l : config_.layers) {
    a_.qkv_stride =
        std::max(a_.qkv_stride, std::size_t{l.heads} * l.k_dim + std::size_t{l.kv_heads} * (l.k_dim + l.v_dim));
    a_.attention_dim = std::max(a_.attention_dim, std::size_t{l.heads} * l.v_dim);
    a_.hidden_dim = std::max(a_.hidden_dim, std::size_t{l.ffn});
  }
  for (const RopeTable& table : config_.rope) a_.pairs = std::max(a_.pairs, table.inverse_frequency.size());
  const std::size_t rows = options_.max_rows, width = config_.width, angles = rows * a_.pairs * config_.rope.size();
  const std::size_t floats[] = {
      rows * width, rows * width, rows * a_.qkv_stride, rows * a_.attention_dim, rows * a_.hidden_dim, rows * width,
      angles,       angles};
  float** targets[] = {&a_.x, &a_.norm, &a_.qkv, &a_.attention, &a_.hidden, &a_.block, &a_.cos, &a_.sin};
  const std::size_t q8[] = {width, a_.attention_dim, a_.hidden_dim};
  std::byte** q8_targets[] = {&a_.norm_q8, &a_.attention_q8, &a_.hidden_q8};
  std::size_t total = 0;
  for (const std::size_t n : floats) total += round_up(n * sizeof(float), 64);
  for (const std::size_t k : q8) total += rows * Q8Rows::stride_for(round_up(k, 32));
  memory_ = Buffer(ledger, Tag::activations, total);
  std::byte* at = memory_.data();
  for (std::size_t i = 0; i < std::size(floats); ++i) {
    *targets[i] = reinterpret_cast<float*>(at);
    at += round_up(floats[i] * sizeof(float), 64);
  }
  for (std::size_t i = 0; i < std::size(q8); ++i) {
    *q8_targets[i] = at;
    at += rows * Q8Rows::stride_for(round_up(q8[i], 32));
  }
}

std::unique_ptr<Sequence> Transformer::new_sequence(std::size_t max_tokens) {
  return std::make_unique<TransformerSequence>(*pools_, max_tokens, options_.max_rows);
}

std::vector<RowRun> Transformer::group_rows(std::span<const Row> rows) const {
  if (rows.empty() || rows.size() > options_.max_rows)
    fail("a forward call takes 1 to {} rows, not {}", options_.max_rows, rows.size());
  std::vector<RowRun> runs;
  std::vector<const Sequence*> seen;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].token < 0 || static_cast<std::uint32_t>(rows[i].token) >= config_.vocab_size)
      fail("token {} is outside the vocabulary of {}", rows[i].token, config_.vocab_size);
    auto* sequence = static_cast<TransformerSequence*>(rows[i].sequence);
    if (seen.empty() || seen.back() != sequence) {
      assert(std::find(seen.begin(), seen.end(), sequence) == seen.end() && "rows of a sequence stand together");
      seen.push_back(sequence);
      runs.push_back({&sequence->kv, i, 0, sequence->length()});
    }
    if (runs.back().position + ++runs.back().count > sequence->max_tokens())
      fail("the context of {} tokens is full", sequence->max_tokens());
  }
  for (const RowRun& run : runs) run.kv->reserve(run.position + run.count);
  return runs;
}

void Transformer::embed(std::span<const Row> rows) {
  pool_.parallel_for(rows.size(), kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* x = a_.x + r * config_.width;
      source_.row(weights_.embedding.weight, static_cast<std::size_t>(rows[r].token), x);
      if (config_.embedding_scale != 1.0f) kernels().scale(x, config_.embedding_scale, config_.width);
    }
  });
}

void Transformer::compute_angles(std::span<const RowRun> runs, std::size_t rows) {
  for (std::size_t t = 0; t < config_.rope.size(); ++t)
    for (const RowRun& run : runs)
      for (std::size_t r = 0; r < run.count; ++r) {
        const std::size_t at = (t * rows + run.row + r) * a_.pairs;
        rope_angles(config_.rope[t], run.position + r, a_.cos + at, a_.sin + at);
      }
}

Input Transformer::quantise(const float* x, std::size_t rows, std::size_t dim, std::byte* q8) const {
  Input input{x, dim, {q8, rows, dim}, rows};
  if (dim % 32 != 0) return input;  // such rows only meet floating weights
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) kernels().quantize(x + r * dim, input.q8, r);
  });
  return input;
}

Input Transformer::normalise(const float* x, std::size_t rows, const std::vector<float>& weight) {
  const std::size_t width = config_.width;
  Input input{a_.norm, width, {a_.norm_q8, rows, width}, rows};
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* out = a_.norm + r * width;
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
  const auto norm = [&](float* x, std::size_t heads, const std::vector<float>& weight) {
    if (weight.empty()) return;
    const std::size_t n = weight.size();
    for (std::size_t at = 0; at < heads * c.k_dim; at += n)
      kernels().rms_norm(x + at, weight.data(), config_.norm_epsilon, n, x + at);
  };
  for (const RowRun& run : runs) {
    pool_.parallel_for(run.count, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t i = from; i < to; ++i) {
        const std::size_t row = run.row + i, position = run.position + i;
        float* q = a_.qkv + row * a_.qkv_stride;
        float *k = q + q_dim, *v = k + kv_dim;
        norm(q, c.heads, layer.query_norm);
        norm(k, c.kv_heads, layer.key_norm);
        if (pairs) {
          const std::size_t at = (c.rope * rows + row) * a_.pairs;
          for (std::size_t h = 0; h < c.heads + c.kv_heads; ++h)
            kernels().rope(q + h * c.k_dim, a_.cos + at, a_.sin + at, pairs,
                           config_.pairing == RopePairing::split_half);
        }
        kernels().scale(q, config_.attention_scale, q_dim);
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

void Transformer::attention_block(std::uint32_t index, std::span<const RowRun> runs, std::size_t rows) {
  const LayerConfig& c = config_.layers[index];
  const Layer& layer = weights_.layers[index];
  const Input input = normalise(a_.x, rows, layer.attention_norm);
  const std::size_t q_dim = std::size_t{c.heads} * c.k_dim, kv_dim = std::size_t{c.kv_heads} * c.k_dim;
  const Products::Job jobs[] = {{&layer.query, a_.qkv, a_.qkv_stride, false, 0, input},
                                {&layer.key, a_.qkv + q_dim, a_.qkv_stride, false, 0, input},
                                {&layer.value, a_.qkv + q_dim + kv_dim, a_.qkv_stride, false, 0, input}};
  products_->run(jobs);
  rotate_and_store(index, runs);
  attention_->run(c, index, runs, a_.qkv, a_.qkv_stride, config_.attention_softcap, layer.sinks, a_.attention);
}

std::size_t Transformer::keep_wanted(std::span<const Row> rows) {
  const std::size_t dim = std::size_t{config_.layers.back().heads} * config_.layers.back().v_dim;
  std::size_t kept = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (!rows[r].wants_logits) continue;
    if (kept != r) {
      std::copy_n(a_.x + r * config_.width, config_.width, a_.x + kept * config_.width);
      std::copy_n(a_.attention + r * dim, dim, a_.attention + kept * dim);
    }
    ++kept;
  }
  return kept;
}

void Transformer::add_block(const std::vector<float>& post_norm, std::size_t rows) {
  const std::size_t width = config_.width;
  pool_.parallel_for(rows, kRowGrain, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* block = a_.block + r * width;
      kernels().rms_norm(block, post_norm.data(), config_.norm_epsilon, width, block);
      kernels().add(a_.x + r * width, block, width);
    }
  });
}

void Transformer::attention_output(const Layer& layer, const LayerConfig& c, std::size_t rows) {
  const Input input = quantise(a_.attention, rows, std::size_t{c.heads} * c.v_dim, a_.attention_q8);
  const bool post = !layer.attention_post_norm.empty();
  const Products::Job job{&layer.output, post ? a_.block : a_.x, config_.width, !post, 0, input};
  products_->run(std::span(&job, 1));
  if (post) add_block(layer.attention_post_norm, rows);
}

void Transformer::feed_forward(std::uint32_t index, std::size_t rows, ForwardStats& stats) {
  const Layer& layer = weights_.layers[index];
  const Input input = normalise(a_.x, rows, layer.ffn_norm);
  const Products::Act act = activation(config_.activation);
  if (config_.layers[index].moe) {
    stats.weight_bytes += layer.router.bytes() + moe_->run(layer, input, act, a_.x);
    return;
  }
  const FeedForward& f = layer.dense;
  const Products::GatedJob gated{&f.gate, &f.up, 0, input, a_.hidden};
  products_->run_gated(std::span(&gated, 1), act);
  const Input hidden = quantise(a_.hidden, rows, f.gate.rows, a_.hidden_q8);
  const bool post = !layer.ffn_post_norm.empty();
  const Products::Job down{&f.down, post ? a_.block : a_.x, config_.width, !post, 0, hidden};
  products_->run(std::span(&down, 1));
  if (post) add_block(layer.ffn_post_norm, rows);
  stats.weight_bytes += f.gate.bytes() + f.up.bytes() + f.down.bytes();
}

void Transformer::compute_logits(std::size_t rows, std::span<float> logits) {
  const Input input = normalise(a_.x, rows, weights_.output_norm);
  const Products::Job job{&weights_.output, logits.data(), config_.vocab_size, false, 0, input};
  products_->run(std::span(&job, 1));
  if (config_.logit_softcap > 0) kernels().softcap(logits.data(), config_.logit_softcap, rows * config_.vocab_size);
}

ForwardStats Transformer::forward(std::span<const Row> rows, std::span<float> logits) {
  const auto wanted =
      static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.wants_logits; }));
  if (logits.size() < wanted * config_.vocab_size) fail("{} logits do not fit into {} floats", wanted, logits.size());
  const std::vector<RowRun> runs = group_rows(rows);
  ForwardStats stats;
  embed(rows);
  compute_angles(runs, rows.size());
  std::size_t count = rows.size();
  for (std::uint32_t i = 0; i < config_.layer_count; ++i) {
    const Layer& layer = weights_.layers[i];
    attention_block(i, runs, count);
    stats.weight_bytes += layer.query.bytes() + layer.key.bytes() + layer.value.bytes() + layer.output.bytes();
    if (i + 1 == config_.layer_count) count = keep_wanted(rows);
    if (count == 0) break;
    attention_output(layer, config_.layers[i], count);
    feed_forward(i, count, stats);
  }
  for (const RowRun& run : runs) stats.kv_bytes += config_.kv_bytes(run.position + run.count);
  if (count > 0) {
    compute_logits(count, logits);
    stats.weight_bytes += weights_.output.bytes();
  }
  for (const RowRun& run : runs) static_cast<TransformerSequence*>(rows[run.row].sequence)->advance(run.count);
  return stats;
}

}  // namespace snug
