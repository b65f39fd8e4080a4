#pragma once
/// One conversation with a model: prefill, then token by token.

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generate/sampler.hpp"
#include "model/model.hpp"

namespace snug {

/// `hash` with the bits of further logits mixed in (FNV-1a over their words).
std::uint64_t hash_logits(std::uint64_t hash, std::span<const float> logits);

struct GenerateOptions {
  std::size_t max_tokens = 512;
  std::vector<std::string> stop;              ///< ends before the first of these; they are not given out
  const std::atomic<bool>* cancel = nullptr;  ///< set it to end after the current token
  bool ignore_end = false;                    ///< go on after an end-of-text token (measurements)
  std::size_t speculate = 0;                  ///< tokens drafted by prompt look-up per step; never changes the result
};

enum class StopReason : std::uint8_t { end_of_text, stop_string, max_tokens, context_full, cancelled };

struct GenerateResult {
  std::string text;
  std::vector<TokenId> tokens;
  StopReason reason = StopReason::end_of_text;
};

struct SessionStats {
  std::size_t loaded_tokens = 0;  ///< of the last load(); those that a prompt shares with them need no prefill
  std::size_t prompt_tokens = 0, generated_tokens = 0;
  double prompt_seconds = 0, generate_seconds = 0;
  Bytes generate_bytes = 0;       ///< weights and KV read while generating
  std::uint64_t logits_hash = 0;  ///< hash_logits() over all logits that tokens were sampled from
};

class Session {
public:
  Session(Model& model, std::size_t context, const SamplerOptions& sampler);

  /// A session with the same history and settings that goes on by itself; what it has in memory is shared until it
  /// changes. Throws OutOfBudget.
  std::unique_ptr<Session> fork() const { return std::unique_ptr<Session>(new Session(*this)); }

  /// Writes the history and what is in memory of it to a file; load() goes on from one, in place of the history so far.
  /// Throw as Model::save and Model::load_sequence; nothing has changed then.
  void save(const std::string& path) const { model_.save(*sequence_, history_, path); }
  void load(const std::string& path);

  /// Makes `tokens` the whole history: what it shares with the present one is kept, the rest is forgotten and fed.
  /// generate() goes on from there. Throws Error when they do not fit.
  void prompt(const std::vector<TokenId>& tokens);
  /// Generates until something ends it, calling `on_text` with complete characters. REQUIRES: a prompt() before.
  GenerateResult generate(const GenerateOptions& options, const std::function<void(std::string_view)>& on_text);

  const SessionStats& stats() const { return stats_; }
  std::size_t length() const { return history_.size(); }
  const std::vector<TokenId>& history() const { return history_; }
  std::size_t context() const { return sequence_->max_tokens(); }
  void hash_logits(bool on) { hash_ = on; }

private:
  Session(const Session& other);
  /// Runs `tokens` in one call; logits of the last `wanted` rows come to logits_.
  void forward(std::span<const TokenId> tokens, std::size_t wanted);
  TokenId sample(std::size_t row);
  /// Feeds tokens in as many calls as it takes; logits of the last one if `wanted`.
  void feed(std::span<const TokenId> tokens, bool wanted);
  /// Forgets what follows the first `length` tokens; feeds again what the sequence had to drop beyond that.
  void rewind(std::size_t length);

  Model& model_;
  Sampler sampler_;
  std::unique_ptr<Sequence> sequence_;
  std::vector<TokenId> history_;
  std::vector<float> logits_;
  std::size_t next_row_ = 0;  ///< row of logits_ that the next token is sampled from
  SessionStats stats_;
  bool hash_ = false;
};

/// Prompt look-up: what followed the latest earlier occurrence of the last `n` (3, then 2) tokens; at most `count`
/// tokens.
std::vector<TokenId> draft_by_lookup(std::span<const TokenId> history, std::size_t count);

}  // namespace snug
