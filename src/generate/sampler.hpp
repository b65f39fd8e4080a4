#pragma once
/// From logits to the next token.

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "text/tokenizer.hpp"

namespace snug {

struct SamplerOptions {
  float temperature = 0.8f;  ///< 0: always the likeliest token
  std::uint32_t top_k = 40;  ///< 0: off
  float top_p = 0.95f;       ///< 1: off
  float min_p = 0.05f;       ///< 0: off
  float repetition_penalty = 1.0f, presence_penalty = 0, frequency_penalty = 0;
  std::uint32_t penalty_window = 64;  ///< tokens that the penalties look back on
  std::uint64_t seed = 0;
};

/// Penalties, then top-k, top-p, min-p, temperature, then a draw. The same seed and logits give the same tokens.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  /// `history`: all tokens so far. Of equally likely tokens greedy sampling takes the lowest id.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> history);

 private:
  struct Candidate {
    TokenId id;
    float logit;
  };
  void penalise(std::span<float> logits, std::span<const TokenId> history) const;

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<float> scratch_;
  std::vector<Candidate> candidates_;
};

}  // namespace snug
