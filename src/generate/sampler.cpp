#include "generate/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace snug {

void Sampler::penalise(std::span<float> logits, std::span<const TokenId> history) const {
  const std::size_t window = std::min<std::size_t>(history.size(), options_.penalty_window);
  std::unordered_map<TokenId, int> counts;
  for (const TokenId id : history.last(window)) ++counts[id];
  for (const auto& [id, count] : counts) {
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  }
}

void Sampler::penalise_repeats(std::span<float> logits, std::span<const TokenId> history) const {
  // Z-function of the reversed history: repeat[i] is how long the text that ends i tokens before the end equals the
  // end.
  const std::size_t n = history.size();
  const auto reversed = [&](std::size_t i) { return history[n - 1 - i]; };
  std::vector<std::size_t> repeat(n, 0);
  std::unordered_map<TokenId, std::size_t> longest;
  for (std::size_t i = 1, left = 0, right = 0; i < n; ++i) {
    if (i < right) repeat[i] = std::min(right - i, repeat[i - left]);
    while (i + repeat[i] < n && reversed(repeat[i]) == reversed(i + repeat[i])) ++repeat[i];
    if (i + repeat[i] > right) {
      left = i;
      right = i + repeat[i];
    }
    std::size_t length = 0;
    while (length < repeat[i] && !options_.dry_breakers.contains(reversed(length))) ++length;
    std::size_t& most = longest[reversed(i - 1)];
    most = std::max(most, length);
  }
  for (const auto& [id, length] : longest)
    if (length >= options_.dry_allowed_length && !options_.dry_breakers.contains(id))
      logits[static_cast<std::size_t>(id)] -=
          options_.dry_multiplier *
          std::pow(options_.dry_base, static_cast<float>(length - options_.dry_allowed_length));
}

void Sampler::keep_top(std::span<const float> logits) {
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) candidates_.push_back({static_cast<TokenId>(i), logits[i], 0});
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const std::size_t k = options_.top_k ? std::min<std::size_t>(options_.top_k, candidates_.size()) : candidates_.size();
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k), candidates_.end(),
                    better);
  candidates_.resize(k);
  double total = 0;
  for (Candidate& c : candidates_)
    total += c.probability = std::exp(static_cast<double>(c.logit - candidates_.front().logit));
  for (Candidate& c : candidates_) c.probability /= total;
}

void Sampler::keep_typical() {
  double entropy = 0, mass = 0;
  for (const Candidate& c : candidates_)
    if (c.probability > 0) entropy -= c.probability * std::log(c.probability);
  std::vector<Candidate> order = candidates_;
  const auto distance = [&](const Candidate& c) {
    return std::abs(-std::log(std::max(c.probability, 1e-300)) - entropy);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Candidate& a, const Candidate& b) { return distance(a) < distance(b); });
  std::size_t kept = 0;
  while (kept < order.size() && mass < static_cast<double>(options_.typical_p)) mass += order[kept++].probability;
  order.resize(std::max<std::size_t>(kept, 1));
  std::stable_sort(order.begin(), order.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  candidates_ = std::move(order);
}

void Sampler::keep_likely() {
  double mass = 0;
  std::size_t kept = 0;
  const double least = static_cast<double>(options_.min_p) * candidates_.front().probability;
  for (const Candidate& c : candidates_) {
    if (kept > 0 && (mass >= static_cast<double>(options_.top_p) || c.probability < least)) break;
    mass += c.probability;
    ++kept;
  }
  candidates_.resize(kept);
}

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> history) {
  const bool recent =
      options_.repetition_penalty != 1.0f || options_.presence_penalty != 0 || options_.frequency_penalty != 0;
  if (recent || options_.dry_multiplier > 0 || !options_.logit_bias.empty()) {
    scratch_.assign(logits.begin(), logits.end());
    for (const auto& [id, bias] : options_.logit_bias) scratch_[static_cast<std::size_t>(id)] += bias;
    if (recent) penalise(scratch_, history);
    if (options_.dry_multiplier > 0) penalise_repeats(scratch_, history);
    logits = scratch_;
  }
  if (options_.temperature <= 0)
    return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  keep_top(logits);
  if (options_.typical_p < 1) keep_typical();
  keep_likely();
  std::vector<double> weights;
  for (const Candidate& c : candidates_)
    weights.push_back(std::exp(static_cast<double>((c.logit - candidates_.front().logit) / options_.temperature)));
  std::discrete_distribution<std::size_t> draw(weights.begin(), weights.end());
  return candidates_[draw(random_)].id;
}

}  // namespace snug
