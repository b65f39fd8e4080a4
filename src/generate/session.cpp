#include "generate/session.hpp"

#include <algorithm>
#include <bit>
#include <chrono>

#include "base/error.hpp"
#include "generate/common_prefix.hpp"
#include "generate/stop_filter.hpp"

namespace snug {

namespace {

class Stopwatch {
public:
  explicit Stopwatch(double& total) : total_(total) {}
  ~Stopwatch() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

private:
  double& total_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

std::vector<TokenId> draft_by_lookup(std::span<const TokenId> history, std::size_t count) {
  for (std::size_t n = 3; n >= 2; --n) {
    if (history.size() <= n) continue;
    const auto tail = history.last(n);
    for (std::size_t at = history.size() - n; at-- > 0;)
      if (std::equal(tail.begin(), tail.end(), history.begin() + static_cast<std::ptrdiff_t>(at))) {
        const auto found = history.subspan(at + n, std::min(count, history.size() - at - n));
        return {found.begin(), found.end()};
      }
  }
  return {};
}

Session::Session(Model& model, std::size_t context, const SamplerOptions& sampler)
    : model_(model), sampler_(sampler), sequence_(model.new_sequence(context)) {}

Session::Session(const Session& other)
    : model_(other.model_),
      sampler_(other.sampler_),
      sequence_(other.sequence_->fork()),
      history_(other.history_),
      logits_(other.logits_),
      next_row_(other.next_row_),
      stats_(other.stats_),
      hash_(other.hash_) {}

void Session::forward(std::span<const TokenId> tokens, std::size_t wanted) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    rows.push_back({tokens[i], sequence_.get(), i + wanted >= tokens.size()});
  logits_.resize(std::max(logits_.size(), wanted * model_.config().vocab_size));
  const ForwardStats cost = model_.forward(rows, logits_);
  stats_.generate_bytes += cost.weight_bytes + cost.kv_bytes;
  history_.insert(history_.end(), tokens.begin(), tokens.end());
}

std::uint64_t hash_logits(std::uint64_t hash, std::span<const float> logits) {
  for (const float value : logits) hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001b3u;
  return hash;
}

TokenId Session::sample(std::size_t row) {
  const std::span<const float> logits(logits_.data() + row * model_.config().vocab_size, model_.config().vocab_size);
  if (hash_) stats_.logits_hash = snug::hash_logits(stats_.logits_hash, logits);
  return sampler_.sample(logits, history_);
}

void Session::feed(std::span<const TokenId> tokens, bool wanted) {
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t n = std::min(model_.most_rows(*sequence_), tokens.size() - at);
    at += n;
    forward(tokens.subspan(at - n, n), wanted && at == tokens.size() ? 1 : 0);
  }
}

void Session::rewind(std::size_t length) {
  const std::size_t kept = sequence_->truncate(length);
  const std::vector<TokenId> again(history_.begin() + static_cast<std::ptrdiff_t>(kept),
                                   history_.begin() + static_cast<std::ptrdiff_t>(length));
  history_.resize(kept);
  feed(again, false);
}

void Session::load(const std::string& path) {
  std::vector<TokenId> tokens;
  sequence_ = model_.load_sequence(path, context(), tokens);
  history_ = std::move(tokens);
  stats_.loaded_tokens = history_.size();
}

void Session::prompt(const std::vector<TokenId>& tokens) {
  if (tokens.empty()) fail("the prompt is empty");
  if (tokens.size() > context())
    fail("the prompt of {} tokens does not fit into the context of {}: use -c {} or a shorter prompt", tokens.size(),
         context(), tokens.size() + 1);
  const Stopwatch watch(stats_.prompt_seconds);
  const Bytes before = stats_.generate_bytes;
  // At least the last token is fed: its logits are what comes next.
  const std::size_t shared = common_prefix(std::span(tokens).first(tokens.size() - 1), history_);
  rewind(shared);
  feed(std::span(tokens).subspan(shared), true);
  next_row_ = 0;
  stats_.prompt_tokens += tokens.size() - shared;
  stats_.generate_bytes = before;
}

GenerateResult Session::generate(const GenerateOptions& options, const std::function<void(std::string_view)>& on_text) {
  GenerateResult result;
  StreamDecoder decoder;
  StopFilter filter(options.stop);
  const auto give = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    if (on_text) on_text(text);
  };
  std::vector<TokenId> draft;  // rows next_row_ + 1 ... hold what follows these, if they turn out right
  const auto finish = [&](StopReason reason) {
    if (!draft.empty()) rewind(history_.size());
    if (!filter.stopped) give(filter.push(decoder.finish()) + filter.finish());
    result.reason = reason;
    return result;
  };
  const auto ends = [&](TokenId token) { return !options.ignore_end && model_.tokenizer().is_end(token); };
  const Stopwatch watch(stats_.generate_seconds);
  while (true) {
    if (result.tokens.size() >= options.max_tokens) return finish(StopReason::max_tokens);
    if (options.cancel && *options.cancel) return finish(StopReason::cancelled);
    const TokenId token = sample(next_row_);
    if (!draft.empty() && draft.front() == token) {
      // The draft was right: its logits are there already.
      draft.erase(draft.begin());
      ++next_row_;
      history_.push_back(token);
    } else {
      if (!draft.empty()) {
        draft.clear();
        rewind(history_.size());
      }
      if (ends(token)) return finish(StopReason::end_of_text);
      if (history_.size() >= context()) return finish(StopReason::context_full);
      std::vector<TokenId> step{token};
      if (options.speculate > 0) {
        std::vector<TokenId> so_far = history_;
        so_far.push_back(token);
        const std::size_t room =
            std::min({options.speculate, context() - so_far.size(), model_.most_rows(*sequence_) - 1});
        draft = draft_by_lookup(so_far, room);
        step.insert(step.end(), draft.begin(), draft.end());
      }
      forward(step, step.size());
      history_.resize(history_.size() - draft.size());
      next_row_ = 0;
    }
    if (ends(token)) return finish(StopReason::end_of_text);
    result.tokens.push_back(token);
    ++stats_.generated_tokens;
    give(filter.push(decoder.push(model_.tokenizer().piece(token))));
    if (filter.stopped) return finish(StopReason::stop_string);
  }
}

}  // namespace snug
