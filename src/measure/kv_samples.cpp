#include "measure/kv_samples.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "measure/low_rank.hpp"

namespace snug {

namespace {

class Sampler {
public:
  Sampler(Model& model, Ledger& ledger, ThreadPool& pool, std::size_t tokens) : model_(model), pool_(pool) {
    const std::vector<KvShape> shapes = model.config().kv_shapes();
    for (const KvShape& s : shapes) {
      Layer layer;
      layer.keys = take<bf16_t>(ledger, tokens * s.kv_heads * s.k_dim);
      layer.values = take<bf16_t>(ledger, tokens * s.kv_heads * s.v_dim);
      layer.queries = take<float>(ledger, std::size_t{s.kv_heads} * s.k_dim * s.k_dim);
      layers_.push_back(layer);
    }
  }

  void run(const std::vector<TokenId>& tokens, std::size_t windows, const KvSampleOptions& options) {
    struct Observed {
      Model& model;
      ~Observed() { model.observe_kv({}); }
    } observed{model_};
    model_.observe_kv([this](const KvRows& rows) { observe(rows); });
    for (std::size_t w = 0; w < windows; ++w) {
      const auto sequence = model_.new_sequence(options.context);
      for (std::size_t at = 0; at < options.context;) {
        const std::size_t n = std::min(options.context - at, model_.max_rows());
        std::vector<Row> rows;
        for (std::size_t i = 0; i < n; ++i)
          rows.push_back({tokens[w * options.context + at + i], sequence.get(), false});
        start_ = w * options.context + at;
        model_.forward(rows, {});
        at += n;
      }
      if (options.progress) options.progress(w + 1, windows);
    }
  }

  KvSampleSet finish(std::size_t tokens, std::size_t context) {
    KvSampleSet set;
    set.samples.tokens = tokens;
    set.samples.context = context;
    const std::vector<KvShape> shapes = model_.config().kv_shapes();
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const KvShape& s = shapes[i];
      const Layer& layer = layers_[i];
      for (std::size_t head = 0; head < s.kv_heads; ++head) {
        float* m = layer.queries + head * s.k_dim * s.k_dim;
        for (std::size_t a = 0; a < s.k_dim; ++a)
          for (std::size_t b = 0; b <= a; ++b) m[b * s.k_dim + a] = m[a * s.k_dim + b] /= static_cast<float>(tokens);
      }
      set.samples.layers.push_back({{layer.keys, tokens * s.kv_heads * s.k_dim},
                                    {layer.values, tokens * s.kv_heads * s.v_dim},
                                    {layer.queries, std::size_t{s.kv_heads} * s.k_dim * s.k_dim}});
    }
    set.memory = std::move(memory_);
    return set;
  }

private:
  struct Layer {
    bf16_t *keys = nullptr, *values = nullptr;
    float* queries = nullptr;
  };

  template <class T>
  T* take(Ledger& ledger, std::size_t count) {
    if (count == 0) return nullptr;
    memory_.emplace_back(ledger, Tag::scratch, count * sizeof(T));
    return memory_.back().as<T>();
  }

  void observe(const KvRows& r) {
    const LayerConfig& c = model_.config().layers[r.kv_layer];
    const Layer& to = layers_[r.kv_layer];
    const std::size_t group = c.heads / c.kv_heads, k_dim = std::size_t{c.kv_heads} * c.k_dim,
                      v_dim = std::size_t{c.kv_heads} * c.v_dim;
    for (std::size_t i = 0; r.keys && i < r.rows; ++i) {
      kernels().to_bf16(r.keys + i * r.stride, k_dim, to.keys + (start_ + i) * k_dim);
      kernels().to_bf16(r.values + i * r.stride, v_dim, to.values + (start_ + i) * v_dim);
    }
    pool_.parallel_for(c.kv_heads, 1, [&](std::size_t from, std::size_t last, unsigned) {
      std::vector<float> queries(r.rows * group * c.k_dim);
      for (std::size_t head = from; head < last; ++head) {
        for (std::size_t i = 0; i < r.rows; ++i)
          std::copy_n(r.queries + i * r.stride + head * group * c.k_dim, group * c.k_dim,
                      &queries[i * group * c.k_dim]);
        add_moments(queries.data(), r.rows * group, c.k_dim, 0, c.k_dim, to.queries + head * c.k_dim * c.k_dim);
      }
    });
  }

  Model& model_;
  ThreadPool& pool_;
  std::vector<Buffer> memory_;
  std::vector<Layer> layers_;
  std::size_t start_ = 0;  ///< of the call's first row, among all tokens
};

}  // namespace

KvSampleSet sample_kv(Model& model, Ledger& ledger, ThreadPool& pool, const std::vector<TokenId>& tokens,
                      const KvSampleOptions& options) {
  const std::size_t windows = std::min(tokens.size(), options.max_tokens) / options.context;
  if (windows == 0)
    fail("the text has {} tokens, less than one window of {}: use a longer text", tokens.size(), options.context);
  const std::size_t count = windows * options.context;
  Sampler sampler(model, ledger, pool, count);
  sampler.run(tokens, windows, options);
  return sampler.finish(count, options.context);
}

}  // namespace snug
