#pragma once
/// The forward pass: attention and gated delta rule layers, dense blocks and mixtures of experts.
/// transformer.cpp: memory and the pass over layers; transformer_blocks.cpp: what a layer does.

#include <memory>
#include <mutex>
#include <vector>

#include "model/activations.hpp"
#include "model/attention.hpp"
#include "model/delta_net.hpp"
#include "model/layer.hpp"
#include "model/model.hpp"
#include "model/moe.hpp"
#include "model/sparse_ffn.hpp"

namespace snug {

class TransformerSequence final : public Sequence {
public:
  TransformerSequence(Ledger& ledger, KvPools& pools, const ModelConfig& config, std::size_t max_tokens,
                      std::size_t slack);
  std::unique_ptr<Sequence> fork() const override;
  std::size_t length() const override { return length_; }
  std::size_t max_tokens() const override { return max_tokens_; }
  std::size_t most_rows() const override { return kv->format().most_rows(length_); }
  std::size_t truncate(std::size_t length) override;
  Bytes memory_bytes() const override;
  void swap_out() override { kv->swap_out(); }
  std::shared_ptr<const KvTransfer> swap_in() override { return kv->swap_in(); }
  bool swapped() const override { return kv->swapped(); }
  void add_pages(std::vector<HeldPage>& to) const override { kv->add_pages(to); }

  void advance(std::size_t tokens);
  /// KvFile::prepare(). REQUIRES: empty.
  std::vector<std::span<std::byte>> prepare(const KvFile& file, std::uint64_t model);
  std::unique_ptr<KvStore> kv;
  std::unique_ptr<RecurrentState> recurrent;  ///< of hybrid models

private:
  TransformerSequence(const TransformerSequence& other);

  std::size_t length_ = 0, max_tokens_;
  std::size_t last_start_ = 0;  ///< length before the last call, if that can be taken back
};

class Transformer final : public Model {
public:
  Transformer(GgufFile file, Ledger& ledger, ThreadPool& pool, ModelOptions options);

  const ModelConfig& config() const override { return config_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  const GgufFile& file() const override { return file_; }
  std::size_t max_rows() const override { return options_.max_rows; }
  Bytes kv_bytes(std::size_t tokens) const override { return pools_->bytes(tokens); }
  Bytes free_kv_bytes() const override { return pools_->free_bytes(); }
  KvSwap* swap() const override { return pools_->swap(); }
  StreamStats stream_stats() const override { return source_.stream_stats(); }
  ExpertStats expert_stats() const override { return source_.expert_stats(); }
  void record_routing(RoutingTrace* trace) override;
  void write_pack(const std::string& path, const std::function<void(Bytes done, Bytes all)>& progress) const override;
  void observe_ffn(FfnObserver observer) override { on_ffn_ = std::move(observer); }
  void observe_kv(KvObserver observer) override { on_kv_ = std::move(observer); }
  SparseFfnStats sparse_ffn_stats() const override { return sparse_ ? sparse_->stats() : SparseFfnStats(); }
  MemoryPlan plan(Bytes budget, std::size_t context) const override;
  std::unique_ptr<Sequence> new_sequence(std::size_t max_tokens) override;
  void save(const Sequence& sequence, std::span<const TokenId> tokens, const std::string& path) const override;
  std::unique_ptr<Sequence> load_sequence(const std::string& path, std::size_t max_tokens,
                                          std::vector<TokenId>& tokens) override;
  std::unique_ptr<Sequence> receive(const KvFile& head, std::size_t max_tokens,
                                    std::vector<std::span<std::byte>>& pages) override;
  std::unique_ptr<KvImage> image(const Sequence& sequence, std::span<const TokenId> tokens) const override;
  std::uint64_t kv_identity() const override;
  KvUse kv_use() const override { return pools_->use(); }
  const std::string& kv_name() const override { return pools_->format().name; }
  bool saved_here(const KvFile& file) const override;
  ForwardStats forward(std::span<const Row> rows, std::span<float> logits) override;
  ForwardStats hidden(std::span<const Row> rows, std::span<float> states) override;
  void resize(Bytes budget) override;
  void wake(Bytes others, const std::function<void(Bytes missing)>& make_room) override;
  void rest() override;
  Bytes give_weights(Bytes wanted) override { return source_.give_back(wanted); }
  WeightUse weight_use() const override {
    return {source_.memory_bytes(), source_.total_bytes(), source_.bytes_pinned()};
  }
  Bytes least_to_wake(std::size_t context) const override {
    return a_->charged(options_.stock) + source_.least_bytes() + kv_room(context);
  }

private:
  std::uint64_t fingerprint() const;
  void open_sparse_ffn();
  void place_neurons(Bytes spare, Bytes most_spare);
  Bytes kv_room(std::size_t tokens) const;
  std::size_t expected_context() const;
  /// What is left free for KV when weights stream, and when all of them are to be in memory.
  std::pair<Bytes, Bytes> spare_for_kv() const;
  void use_pack();
  /// Activations for the most rows whose memory is a sane share of the budget.
  std::unique_ptr<Activations> fitting_activations(Bytes budget);
  void place_activations();
  std::vector<RowRun> group_rows(std::span<const Row> rows) const;
  void embed(std::span<const Row> rows);
  void embed_per_layer(std::span<const Row> rows);
  void compute_angles(std::span<const RowRun> runs, std::size_t rows);
  /// Keeps only the rows that want logits (nothing after the last layer's attention needs the others).
  std::size_t keep_wanted(std::span<const Row> rows);
  void compute_logits(std::size_t rows, std::span<float> logits);
  void compute_states(std::size_t rows, std::span<float> states);
  /// One pass; `finish` makes what is asked for, `size` floats for each row that wants it.
  ForwardStats pass(std::span<const Row> rows, std::span<float> out, std::size_t size,
                    void (Transformer::*finish)(std::size_t rows, std::span<float> out));

  /// Norm (null weight: none) and quantisation of rows of width `width`.
  Input normalise(const float* x, std::size_t rows, const std::vector<float>& weight, const RowMemory& into);
  Input quantise(const float* x, std::size_t rows, std::size_t dim, std::byte* q8) const;
  void rotate_and_store(std::uint32_t index, std::span<const RowRun> runs);
  /// Attention or delta net; the result lies in a_->mixed.
  void mix(std::uint32_t index, std::span<const RowRun> runs, std::size_t rows);
  void attend(std::uint32_t index, std::span<const RowRun> runs, std::size_t rows);
  void mixer_output(std::uint32_t index, std::size_t rows);
  void feed_forward(std::uint32_t index, std::size_t rows);
  /// hidden = act(gate, up).
  void dense_hidden(const FeedForward& block, const Input& input, const RowMemory& hidden);
  /// out (+)= down(act(gate, up)).
  void dense_block(const FeedForward& block, const Input& input, const RowMemory& hidden, float* out, bool add);
  void shared_expert(const Layer& layer, const Input& input, std::size_t rows);
  void dense_beside_experts(const Layer& layer, std::size_t rows);
  void add_block(float* block, const std::vector<float>& post_norm, std::size_t rows);
  void per_layer_block(std::uint32_t index, std::size_t rows);

  std::mutex busy_;  ///< forward() and resize()
  GgufFile file_;
  ModelConfig config_;
  ModelOptions options_;
  Ledger& ledger_;
  ThreadPool& pool_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Reservation tokenizer_memory_, process_memory_;
  FileSource source_;
  ModelWeights weights_;
  std::unique_ptr<Products> products_;
  std::unique_ptr<Attention> attention_;
  std::unique_ptr<Activations> a_;
  std::unique_ptr<MixtureOfExperts> moe_;
  std::unique_ptr<DeltaNet> delta_;
  std::unique_ptr<SparseFfn> sparse_;
  bool rests_ = false;
  bool decoding_ = false;  ///< the call has one row: sparse blocks are for such calls
  FfnObserver on_ffn_;
  KvObserver on_kv_;
  Products::Act act_;
  ForwardStats stats_;
  std::unique_ptr<KvPools> pools_;
  mutable std::uint64_t fingerprint_ = 0;  ///< of the model, once it is needed
};

}  // namespace snug
