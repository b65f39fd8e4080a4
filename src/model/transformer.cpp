#include "model/transformer.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <filesystem>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/memory_info.hpp"
#include "format/fingerprint.hpp"
#include "format/hash.hpp"
#include "model/rope.hpp"

namespace snug {

namespace {

constexpr float kOaiAlpha = 1.702f, kOaiLimit = 7.0f;  // gpt-oss's clamped SwiGLU

void swiglu_oai(const float* gate, const float* up, std::size_t n, float* out) {
  kernels().swiglu_oai(gate, up, kOaiAlpha, kOaiLimit, n, out);
}

/// relu(up)^2, when both are `up`.
void relu_mul(const float* gate, const float* up, std::size_t n, float* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = gate[i] > 0 ? gate[i] * up[i] : 0;
}

Products::Act activation(Activation a) {
  switch (a) {
    case Activation::silu:
      return kernels().silu_mul;
    case Activation::gelu:
      return kernels().gelu_mul;
    case Activation::swiglu_oai:
      return swiglu_oai;
    case Activation::relu_squared:
      return relu_mul;
  }
  return nullptr;
}

}  // namespace

void Model::feed(Sequence& sequence, std::span<const TokenId> tokens, std::span<float> logits) {
  for (std::size_t at = 0; at < tokens.size();) {
    std::vector<Row> rows;
    for (const std::size_t most = most_rows(sequence); rows.size() < most && at < tokens.size(); ++at)
      rows.push_back({tokens[at], &sequence, !logits.empty() && at + 1 == tokens.size()});
    forward(rows, logits);
  }
}

void Model::bring_back(Sequence& sequence) const {
  if (!sequence.swapped()) return;
  const auto transfer = sequence.swap_in();
  while (!transfer->done()) swap()->wait(), swap()->collect();
  if (!transfer->error().empty()) fail<IoError>("{}", transfer->error());
}

std::unique_ptr<Model> Model::load(const std::string& path, Ledger& ledger, ThreadPool& pool, ModelOptions options) {
  return std::make_unique<Transformer>(GgufFile::open(path), ledger, pool, options);
}

TransformerSequence::TransformerSequence(Ledger& ledger, KvPools& pools, const ModelConfig& config,
                                         std::size_t max_tokens, std::size_t slack)
    : kv(std::make_unique<KvStore>(pools, slack)), max_tokens_(max_tokens) {
  if (config.state_bytes() > 0) recurrent = std::make_unique<RecurrentState>(ledger, config);
}

TransformerSequence::TransformerSequence(const TransformerSequence& other)
    : kv(other.kv->fork()),
      recurrent(other.recurrent ? other.recurrent->copy() : nullptr),
      length_(other.length_),
      max_tokens_(other.max_tokens_),
      last_start_(other.last_start_) {}

std::unique_ptr<Sequence> TransformerSequence::fork() const {
  return std::unique_ptr<Sequence>(new TransformerSequence(*this));
}

Bytes TransformerSequence::memory_bytes() const {
  return kv->memory_bytes() + (recurrent ? recurrent->memory_bytes() : 0);
}

std::size_t TransformerSequence::truncate(std::size_t length) {
  if (length >= length_) return length_;
  if (recurrent) {
    // Recurrent state knows where the last call began, and nothing else.
    if (length >= last_start_ && last_start_ > 0) {
      recurrent->step_back();
      length = last_start_;
    } else {
      recurrent->clear();
      length = 0;
    }
    last_start_ = 0;
  }
  length_ = length >= kv->oldest_restorable(length_) ? length : 0;
  if (recurrent && length_ == 0) recurrent->clear();
  kv->trim(length_);
  return length_;
}

std::vector<std::span<std::byte>> TransformerSequence::prepare(const KvFile& file, std::uint64_t model) {
  auto pages = file.prepare(model, *kv, recurrent ? recurrent->bytes() : std::span<std::byte>());
  length_ = file.tokens().size();
  last_start_ = 0;
  return pages;
}

void TransformerSequence::advance(std::size_t tokens) {
  last_start_ = length_;
  length_ += tokens;
  if (recurrent) recurrent->advance();
  kv->trim(length_);
}

Transformer::Transformer(GgufFile file, Ledger& ledger, ThreadPool& pool, ModelOptions options)
    : file_(std::move(file)),
      config_(read_config(file_)),
      options_(options),
      ledger_(ledger),
      pool_(pool),
      tokenizer_(Tokenizer::from_gguf(file_)),
      source_(ledger, pool, kChunkGroups),
      act_(activation(config_.activation)) {
  tokenizer_memory_ = ledger.reserve(Tag::tokenizer, tokenizer_->memory_bytes());
  if (options_.charge_process) {
    release_free_memory();
    const Bytes resident = resident_bytes(), charged = ledger.report().used;
    const Bytes sampling = Bytes{config_.vocab_size} * 16;  // logits and candidates of a session
    process_memory_ = ledger.reserve(Tag::runtime, sampling + (resident > charged ? resident - charged : 0));
  }
  weights_ = map_weights(file_, config_, source_, options_.reference);
  if (options_.use_pack && !options_.reference) use_pack();
  if (options_.sparse_ffn.share > 0) open_sparse_ffn();
  std::size_t widest = std::max(config_.width, config_.per_layer_input);
  for (const LayerConfig& l : config_.layers) widest = std::max({widest, std::size_t{l.ffn}, config_.mixer_size(l)});
  widest = std::max({widest, std::size_t{config_.moe.ffn}, std::size_t{config_.moe.shared_ffn}});
  a_ = fitting_activations(options_.load_weights ? ledger.report().limit : options_.plan_for);
  KvFormat format;
  if (options_.kv.coded() || options_.kv_format) {
    const auto known = config_.kv_model(file_.path(), fingerprint());
    format = options_.kv_format ? options_.kv_format(known) : make_kv_format(options_.kv, known);
  }
  pools_ =
      std::make_unique<KvPools>(ledger, config_.kv_shapes(), std::move(format), options_.kv_spill, options_.kv_swap);
  products_ = std::make_unique<Products>(ledger, pool, source_, options_.max_rows, widest);
  attention_ = std::make_unique<Attention>(ledger, pool, config_, expected_context(), pools_->format().coded());
  source_.set_expert_policy(options_.expert_policy);
  if (options_.shares_memory && options_.load_weights) {
    if (sparse_) fail("a share of the neurons (--sparse-ffn) is for a model that has its memory alone");
    source_.share_memory(options_.stock);
    rest();
    return;
  }
  place_activations();
  if (!options_.load_weights) return;
  const auto [spare, most_spare] = spare_for_kv();
  if (sparse_) place_neurons(spare, most_spare);
  source_.load(spare, most_spare);
  log(LogLevel::info, "{}: {} layers of {}, kernels {}, {} threads, {} of {} of weights in memory", file_.path(),
      config_.layer_count, config_.architecture, kernels().name, pool.size(), format_bytes(source_.pinned_bytes()),
      format_bytes(source_.total_bytes()));
}

void Transformer::use_pack() {
  const std::string path = pack_path(file_.path());
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  PackFile pack = PackFile::open(path);
  if (pack.model() != model_fingerprint(file_))
    fail<FormatError>("{} was made of another model: make it again (snug pack), or remove it", path);
  source_.use_pack(std::move(pack));
}

void Transformer::write_pack(const std::string& path,
                             const std::function<void(Bytes done, Bytes all)>& progress) const {
  snug::write_pack(path, model_fingerprint(file_), source_.pack_units(), pool_, progress);
}

void Transformer::open_sparse_ffn() {
  const std::string path = ffn_path(file_);
  if (!std::filesystem::exists(path)) fail("{} is missing: snug sparsify makes it", path);
  FfnFile neurons = FfnFile::open(path, file_);
  const FfnShape& shape = neurons.shape();
  bool fits = shape.width == config_.width && shape.neurons.size() == config_.layer_count &&
              shape.gated == (config_.activation != Activation::relu_squared);
  for (std::size_t i = 0; fits && i < config_.layer_count; ++i)
    fits = shape.neurons[i] == (config_.layers[i].moe ? 0 : config_.layers[i].ffn);
  if (!fits) fail<FormatError>("{}: its layers are not those of the model", neurons.path());
  sparse_ = std::make_unique<SparseFfn>(ledger_, pool_, std::move(neurons), options_.sparse_ffn, act_);
  for (const Layer& layer : weights_.layers)
    for (const Linear* part : {&layer.dense.gate, &layer.dense.up, &layer.dense.down})
      if (part->rows > 0) source_.seldom(part->weight);
  source_.prepare();
}

/// Neurons get what the other weights leave: those are used for every token.
void Transformer::place_neurons(Bytes spare, Bytes most_spare) {
  const LedgerReport report = ledger_.report();
  const WeightPlan others = source_.plan(report.limit, report.used + sparse_->least_cache_bytes(), spare, most_spare);
  const Bytes taken = report.used + others.memory() + (others.whole ? most_spare : spare);
  sparse_->make_cache(report.limit > taken ? report.limit - taken : 0);
}

Bytes Transformer::kv_room(std::size_t tokens) const {
  return pools_->most_bytes(tokens, options_.max_rows) + pools_->slack_bytes() + 2 * config_.state_bytes();
}

std::size_t Transformer::expected_context() const {
  return options_.context ? options_.context : std::max<std::size_t>(config_.trained_context, kUsualContext);
}

std::pair<Bytes, Bytes> Transformer::spare_for_kv() const {
  // Of several models, each has its own.
  const Bytes there = options_.shares_memory ? pools_->used_bytes() + pools_->free_bytes()
                                             : ledger_.report().by_tag[static_cast<std::size_t>(Tag::kv)];
  const auto missing = [&](std::size_t tokens) {
    const Bytes room = kv_room(tokens);
    return room > there ? room - there : 0;
  };
  return {missing(options_.context ? options_.context : kUsualContext), missing(expected_context())};
}

void Transformer::resize(Bytes budget) {
  const std::lock_guard lock(busy_);
  const LedgerReport report = ledger_.report();
  const Bytes least = report.used - source_.memory_bytes() + source_.least_bytes();
  if (budget < least)
    fail("a budget of {} is too small: at least {} are needed now", format_bytes(budget), format_bytes(least));
  ledger_.set_limit(budget);
  const auto [spare, most_spare] = spare_for_kv();
  source_.refit(spare, most_spare, a_->memory());
}

void Transformer::place_activations() {
  a_->allocate(ledger_, options_.stock);
  if (config_.moe.experts) moe_ = std::make_unique<MixtureOfExperts>(*products_, config_, a_->experts);
  if (config_.state_bytes() > 0) delta_ = std::make_unique<DeltaNet>(*products_, config_, a_->delta);
}

void Transformer::wake(Bytes others, const std::function<void(Bytes)>& make_room) {
  const std::lock_guard lock(busy_);
  try {
    const auto free = [this] {
      const LedgerReport report = ledger_.report();
      return report.limit > report.used ? report.limit - report.used : 0;
    };
    const auto want = [&](Bytes bytes) {
      if (const Bytes there = free(); bytes > there) make_room(bytes - there);
    };
    if (options_.stock) options_.stock->open();
    const Bytes working = rests_ ? a_->charged(options_.stock) : 0;
    const auto [spare, most_spare] = spare_for_kv();
    const LedgerReport report = ledger_.report();
    // As if others had given up all that they may; what is missing of that, they do: page by page, what they had
    // becomes its own.
    const Bytes own = source_.memory_bytes(), not_own = report.used - own;
    const WeightPlan plan =
        source_.plan(report.limit, working + not_own - std::min(not_own, others), spare, most_spare);
    if (const Bytes wanted = working + plan.memory() + spare; wanted > own) want(wanted - own);
    if (rests_) {
      place_activations();
      rests_ = false;
    }
    source_.refit(spare, most_spare, a_->memory());
    if (options_.stock) options_.stock->close();
  } catch (...) {
    if (options_.stock) options_.stock->close();
    rest();
    throw;
  }
}

void Transformer::rest() {
  source_.rest();
  a_->release();
  rests_ = true;
}

void Transformer::record_routing(RoutingTrace* trace) {
  if (!moe_) fail("{} has no experts", file_.path());
  if (trace) {
    const auto layers =
        std::count_if(config_.layers.begin(), config_.layers.end(), [](const auto& l) { return l.moe; });
    *trace = {config_.moe.experts, config_.moe.used, {}};
    trace->chosen.resize(static_cast<std::size_t>(layers));
  }
  moe_->record(trace);
}

MemoryPlan Transformer::plan(Bytes budget, std::size_t context) const {
  MemoryPlan plan;
  plan.budget = budget;
  plan.context = context;
  plan.max_rows = options_.max_rows;
  plan.layers = config_.layer_count;
  plan.by_tag = ledger_.report().by_tag;
  Bytes &weights = plan.by_tag[static_cast<std::size_t>(Tag::weights)],
        &kv = plan.by_tag[static_cast<std::size_t>(Tag::kv)];
  kv = kv_room(context);
  weights = sparse_ ? sparse_->memory_bytes() + (options_.load_weights ? 0 : sparse_->least_cache_bytes()) : 0;
  const Bytes others = plan.used() - kv;
  plan.weights = source_.plan(budget, others, kv, kv);
  plan.smallest = plan.used() + source_.least_bytes();
  weights += plan.weights.memory();
  const WeightPlan& w = plan.weights;
  // Of the experts, a token uses `used`; the output matrix meets only the rows whose logits are wanted.
  const auto used = [this](std::uint64_t all) {
    return config_.moe.experts ? all / config_.moe.experts * config_.moe.used : 0;
  };
  plan.step_bytes = w.multiplied + used(w.multiplied_experts);
  plan.expert_token_bytes = used(w.expert_file_bytes);
  plan.expert_hits = w.expert_share;  // of routers that choose evenly
  plan.streamed_bytes =
      w.streamed + static_cast<Bytes>(static_cast<double>(plan.expert_token_bytes) * (1 - plan.expert_hits));
  plan.kv_bytes = pools_->bytes(context);
  plan.weights_per_token =
      w.values + used(w.expert_values) - std::uint64_t{weights_.output.rows} * weights_.output.weight.cols;
  return plan;
}

/// A chunk of a prefill reads streamed weights once, so half the rows are twice the reads; what the rows take, those
/// weights cannot have, and decoding reads so much more. A fourteenth is little for that, and more rows than 512 would
/// hardly be faster.
std::unique_ptr<Activations> Transformer::fitting_activations(Bytes budget) {
  constexpr std::size_t kLeast = 64, kShare = 14;
  for (;; options_.max_rows /= 2) {
    const std::size_t rows = options_.max_rows;
    auto result = std::make_unique<Activations>(config_, weights_, rows, options_.place_activations);
    const Bytes all = result->bytes() + pool_.size() * Products::column_bytes(rows);
    if (rows <= kLeast || all <= budget / kShare) return result;
  }
}

std::unique_ptr<Sequence> Transformer::new_sequence(std::size_t max_tokens) {
  return std::make_unique<TransformerSequence>(ledger_, *pools_, config_, max_tokens, options_.max_rows);
}

std::uint64_t Transformer::fingerprint() const {
  if (fingerprint_ == 0) fingerprint_ = model_fingerprint(file_);
  return fingerprint_;
}

void Transformer::save(const Sequence& sequence, std::span<const TokenId> tokens, const std::string& path) const {
  const auto& s = static_cast<const TransformerSequence&>(sequence);
  assert(tokens.size() == s.length());
  write_kv_file(path, fingerprint(), tokens, *s.kv, s.recurrent ? s.recurrent->bytes() : std::span<const std::byte>());
}

std::unique_ptr<Sequence> Transformer::load_sequence(const std::string& path, std::size_t max_tokens,
                                                     std::vector<TokenId>& tokens) {
  const KvFile file = KvFile::open(path);
  std::vector<std::span<std::byte>> pages;
  auto sequence = receive(file, max_tokens, pages);
  file.fill(pages);
  tokens = file.tokens();
  return sequence;
}

std::unique_ptr<Sequence> Transformer::receive(const KvFile& head, std::size_t max_tokens,
                                               std::vector<std::span<std::byte>>& pages) {
  const std::string& path = head.path();
  if (head.tokens().size() > max_tokens)
    fail("{}: its {} tokens do not fit into the context of {}", path, head.tokens().size(), max_tokens);
  for (const TokenId token : head.tokens())
    if (token < 0 || static_cast<std::uint32_t>(token) >= config_.vocab_size)
      fail<FormatError>("{}: token {} is outside the vocabulary", path, token);
  auto sequence = std::make_unique<TransformerSequence>(ledger_, *pools_, config_, max_tokens, options_.max_rows);
  pages = sequence->prepare(head, fingerprint());
  return sequence;
}

std::unique_ptr<KvImage> Transformer::image(const Sequence& sequence, std::span<const TokenId> tokens) const {
  const auto& s = static_cast<const TransformerSequence&>(sequence);
  assert(tokens.size() == s.length());
  if (s.kv->on_disk()) return nullptr;
  return std::make_unique<KvImage>(fingerprint(), tokens, *s.kv,
                                   s.recurrent ? s.recurrent->bytes() : std::span<const std::byte>());
}

std::uint64_t Transformer::kv_identity() const {
  Hash hash;
  hash.add_value(kKvFileVersion);
  hash.add_value(fingerprint());
  hash.add_value(pools_->format().learned);
  for (const std::string_view name : {std::string_view(kv_name()), kernels().name}) {
    hash.add_value(name.size());
    hash.add(std::as_bytes(std::span(name)));
  }
  return hash.value();
}

bool Transformer::saved_here(const KvFile& file) const {
  return file.model() == fingerprint() && file.format() == pools_->format().name;
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
      runs.push_back({sequence->kv.get(), i, 0, sequence->length(), sequence->recurrent.get()});
    }
    if (runs.back().position + ++runs.back().count > sequence->max_tokens())
      fail("the context of {} tokens is full", sequence->max_tokens());
    if (runs.back().count > sequence->most_rows())
      fail("a forward call takes at most {} rows of this sequence now", sequence->most_rows());
  }
  for (const RowRun& run : runs) {
    run.kv->forget_codes(run.position);
    run.kv->reserve(run.position + run.count);
  }
  return runs;
}

void Transformer::embed(std::span<const Row> rows) {
  std::vector<RowUse> uses;
  for (std::size_t r = 0; r < rows.size(); ++r)
    uses.push_back({static_cast<std::size_t>(rows[r].token), a_->x + r * config_.width});
  source_.rows(weights_.embedding.weight, uses);
  for (const RowUse& use : uses)
    if (config_.embedding_scale != 1.0f) kernels().scale(use.out, config_.embedding_scale, config_.width);
  if (config_.per_layer_input) embed_per_layer(rows);
}

void Transformer::embed_per_layer(std::span<const Row> rows) {
  const std::size_t each = config_.per_layer_input, all = each * config_.layer_count;
  const Input input = quantise(a_->x, rows.size(), config_.width, a_->mixer_input.q8);
  const Products::Job job{&weights_.per_layer_projection, a_->per_layer, all, false, 0, input};
  products_->run(std::span(&job, 1));
  constexpr std::size_t kBlock = 16;  // an embedding of all layers is large
  std::vector<float> embeddings(std::min(kBlock, rows.size()) * all);
  std::vector<RowUse> uses;
  for (std::size_t first = 0; first < rows.size(); first += kBlock) {
    uses.clear();
    for (std::size_t r = first; r < std::min(rows.size(), first + kBlock); ++r)
      uses.push_back({static_cast<std::size_t>(rows[r].token), embeddings.data() + (r - first) * all});
    source_.rows(weights_.per_layer_embedding.weight, uses);
    pool_.parallel_for(uses.size(), 1, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t i = from; i < to; ++i) {
        float* x = a_->per_layer + (first + i) * all;
        kernels().scale(x, 1.0f / std::sqrt(static_cast<float>(config_.width)), all);
        for (std::size_t at = 0; at < all; at += each)
          kernels().rms_norm(x + at, weights_.per_layer_norm.data(), config_.norm_epsilon, each, x + at);
        kernels().axpy(x, std::sqrt(static_cast<float>(each)), uses[i].out, all);
        kernels().scale(x, std::sqrt(0.5f), all);
      }
    });
  }
}

void Transformer::compute_angles(std::span<const RowRun> runs, std::size_t rows) {
  for (std::size_t t = 0; t < config_.rope.size(); ++t)
    for (const RowRun& run : runs)
      for (std::size_t r = 0; r < run.count; ++r) {
        const std::size_t at = (t * rows + run.row + r) * a_->pairs;
        rope_angles(config_.rope[t], run.position + r, a_->cos + at, a_->sin + at);
      }
}

std::size_t Transformer::keep_wanted(std::span<const Row> rows) {
  const std::size_t width = config_.width, dim = config_.mixer_size(config_.layers.back()),
                    per_layer = std::size_t{config_.per_layer_input} * config_.layer_count;
  std::size_t kept = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (!rows[r].wants_logits) continue;
    if (kept != r) {
      std::copy_n(a_->x + r * width, width, a_->x + kept * width);
      std::copy_n(a_->mixed.f32 + r * dim, dim, a_->mixed.f32 + kept * dim);
      std::copy_n(a_->per_layer + r * per_layer, per_layer, a_->per_layer + kept * per_layer);
    }
    ++kept;
  }
  return kept;
}

void Transformer::compute_logits(std::size_t rows, std::span<float> logits) {
  const Input input = normalise(a_->x, rows, weights_.output_norm, a_->output_input);
  const Products::Job job{&weights_.output, logits.data(), config_.vocab_size, false, 0, input};
  products_->run(std::span(&job, 1));
  if (config_.logit_softcap > 0) kernels().softcap(logits.data(), config_.logit_softcap, rows * config_.vocab_size);
  stats_.weight_bytes += weights_.output.bytes();
}

void Transformer::compute_states(std::size_t rows, std::span<float> states) {
  const Input input = normalise(a_->x, rows, weights_.output_norm, a_->output_input);
  std::copy_n(input.f32, rows * config_.width, states.data());
}

ForwardStats Transformer::forward(std::span<const Row> rows, std::span<float> logits) {
  return pass(rows, logits, config_.vocab_size, &Transformer::compute_logits);
}

ForwardStats Transformer::hidden(std::span<const Row> rows, std::span<float> states) {
  return pass(rows, states, config_.width, &Transformer::compute_states);
}

ForwardStats Transformer::pass(std::span<const Row> rows, std::span<float> out, std::size_t size,
                               void (Transformer::*finish)(std::size_t rows, std::span<float> out)) {
  const auto wanted =
      static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.wants_logits; }));
  if (out.size() < wanted * size) fail("{} rows of {} floats do not fit into {}", wanted, size, out.size());
  const std::lock_guard lock(busy_);
  assert(!rests_);
  const std::vector<RowRun> runs = group_rows(rows);
  stats_ = {};
  decoding_ = rows.size() == 1;
  embed(rows);
  compute_angles(runs, rows.size());
  std::size_t count = rows.size();
  for (std::uint32_t i = 0; i < config_.layer_count; ++i) {
    mix(i, runs, count);
    if (i + 1 == config_.layer_count) count = keep_wanted(rows);
    if (count == 0) break;
    mixer_output(i, count);
    feed_forward(i, count);
    if (config_.per_layer_input) per_layer_block(i, count);
    if (const float scale = weights_.layers[i].output_scale; scale != 1.0f)
      kernels().scale(a_->x, scale, count * config_.width);
  }
  for (const RowRun& run : runs) stats_.kv_bytes += pools_->bytes(run.position + run.count);
  if (count > 0) (this->*finish)(count, out);
  source_.check_files();
  if (pools_->format().late())
    for (const RowRun& run : runs)
      run.kv->encode_late(pool_, pools_->format().coded_between_calls(run.position + run.count));
  for (const RowRun& run : runs) static_cast<TransformerSequence*>(rows[run.row].sequence)->advance(run.count);
  return stats_;
}

}  // namespace snug
