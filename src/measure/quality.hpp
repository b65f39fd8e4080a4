#pragma once
/// Quality on a text: perplexity, and how far a model's predictions are from a reference's.

#include <functional>
#include <span>
#include <vector>

#include "model/model.hpp"

namespace snug {

struct TextWindows {
  std::size_t context = 512;
  std::size_t max_tokens = 0;                                       ///< use at most so many tokens of the text; 0: all
  bool one_by_one = false;                                          ///< rows are computed singly, as in decode
  std::function<void(std::size_t done, std::size_t all)> progress;  ///< after each window, when set
};

struct PerplexityResult {
  std::size_t tokens = 0;  ///< scored
  double nll = 0;          ///< mean negative log-likelihood
  double perplexity = 0, standard_error = 0;
};

/// llama.cpp's convention: consecutive windows of `context` tokens, each beginning with BOS (in place of its first
/// token) where the model has one; the tokens of the second half are scored. Throws Error when there is not one whole
/// window.
PerplexityResult perplexity(Model& model, const std::vector<TokenId>& tokens, const TextWindows& windows);

struct DivergenceResult {
  std::size_t tokens = 0;
  double mean_kl = 0, max_kl = 0;  ///< KL(reference || model) per token
  double same_top = 0;             ///< share of tokens where both have the same likeliest next token
};

/// KL(p || q) of the next token, from the logits of two models.
double divergence(std::span<const float> p, std::span<const float> q);

/// Both models over the same windows, every position scored.
DivergenceResult divergence(Model& model, Model& reference, const std::vector<TokenId>& tokens,
                            const TextWindows& windows);

}  // namespace snug
