#pragma once
/// From logits to the next token.

#include <cstdint>
#include <random>
#include <span>
#include <unordered_set>
#include <utility>
#include <vector>

#include "text/tokenizer.hpp"

namespace snug {

struct SamplerOptions {
  float temperature = 0.8f;  ///< 0: always the likeliest token
  std::uint32_t top_k = 40;  ///< 0: off
  float top_p = 0.95f;       ///< 1: off
  float min_p = 0.05f;       ///< 0: off
  float typical_p = 1.0f;    ///< locally typical sampling (Meister et al. 2022); 1: off
  float repetition_penalty = 1.0f, presence_penalty = 0, frequency_penalty = 0;
  std::uint32_t penalty_window = 64;  ///< tokens that the penalties look back on
  /// DRY ("don't repeat yourself"): a token that would prolong a repeat of n >= allowed_length tokens loses
  /// multiplier * base^(n - allowed_length). Breakers end a repeat.
  float dry_multiplier = 0, dry_base = 1.75f;
  std::uint32_t dry_allowed_length = 2;
  std::unordered_set<TokenId> dry_breakers;
  std::vector<std::pair<TokenId, float>> logit_bias{};  ///< what is added to logits before all else
  std::uint64_t seed = 0;
};

/// Biases, penalties, then top-k, typical, top-p, min-p, temperature, then a draw. The same seed and logits give the
/// same tokens.
class Sampler {
public:
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  /// `history`: all tokens so far. Of equally likely tokens greedy sampling takes the lowest id.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> history);

private:
  struct Candidate {
    TokenId id;
    float logit;
    double probability;
  };
  void penalise(std::span<float> logits, std::span<const TokenId> history) const;
  void penalise_repeats(std::span<float> logits, std::span<const TokenId> history) const;
  void keep_top(std::span<const float> logits);
  void keep_typical();
  void keep_likely();

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<float> scratch_;
  std::vector<Candidate> candidates_;
};

}  // namespace snug
