#pragma once
/// The forward pass of attention models, dense and mixture-of-experts.

#include <memory>
#include <vector>

#include "model/attention.hpp"
#include "model/layer.hpp"
#include "model/model.hpp"
#include "model/moe.hpp"

namespace snug {

class TransformerSequence final : public Sequence {
public:
  TransformerSequence(KvPools& pools, std::size_t max_tokens, std::size_t slack)
      : kv(pools, slack), max_tokens_(max_tokens) {}
  std::size_t length() const override { return length_; }
  std::size_t max_tokens() const override { return max_tokens_; }
  std::size_t truncate(std::size_t length) override;
  Bytes memory_bytes() const override { return kv.memory_bytes(); }

  void advance(std::size_t tokens);
  KvStore kv;

private:
  std::size_t length_ = 0, max_tokens_;
};

class Transformer final : public Model {
public:
  Transformer(GgufFile file, Ledger& ledger, ThreadPool& pool, ModelOptions options);

  const ModelConfig& config() const override { return config_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const GgufFile& file() const override { return file_; }
  std::size_t max_rows() const override { return options_.max_rows; }
  std::unique_ptr<Sequence> new_sequence(std::size_t max_tokens) override;
  ForwardStats forward(std::span<const Row> rows, std::span<float> logits) override;

private:
  /// Activations of one forward call.
  struct Activations {
    float *x, *norm, *qkv, *attention, *hidden, *block, *cos, *sin;
    std::byte *norm_q8, *attention_q8, *hidden_q8;
    std::size_t qkv_stride, attention_dim, hidden_dim, pairs;
  };
  void plan_activations(Ledger& ledger);
  std::vector<RowRun> group_rows(std::span<const Row> rows) const;
  void embed(std::span<const Row> rows);
  void compute_angles(std::span<const RowRun> runs, std::size_t rows);
  /// Norm (null weight: none) and quantisation of rows of width `width`.
  Input normalise(const float* x, std::size_t rows, const std::vector<float>& weight);
  Input quantise(const float* x, std::size_t rows, std::size_t dim, std::byte* q8) const;
  void rotate_and_store(std::uint32_t index, std::span<const RowRun> runs);
  void attention_block(std::uint32_t index, std::span<const RowRun> runs, std::size_t rows);
  /// Keeps only the rows that want logits (nothing after the last layer's attention needs the others).
  std::size_t keep_wanted(std::span<const Row> rows);
  void attention_output(const Layer& layer, const LayerConfig& c, std::size_t rows);
  void feed_forward(std::uint32_t index, std::size_t rows, ForwardStats& stats);
  void add_block(const std::vector<float>& post_norm, std::size_t rows);
  void compute_logits(std::size_t rows, std::span<float> logits);

  GgufFile file_;
  ModelConfig config_;
  ModelOptions options_;
  ThreadPool& pool_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Reservation tokenizer_memory_;
  ResidentSource source_;
  ModelWeights weights_;
  std::unique_ptr<Products> products_;
  std::unique_ptr<Attention> attention_;
  std::unique_ptr<MixtureOfExperts> moe_;
  std::unique_ptr<KvPools> pools_;
  Buffer memory_;
  Activations a_{};
};

}  // namespace snug
