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

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> history) {
  if (options_.repetition_penalty != 1.0f || options_.presence_penalty != 0 || options_.frequency_penalty != 0) {
    scratch_.assign(logits.begin(), logits.end());
    penalise(scratch_, history);
    logits = scratch_;
  }
  if (options_.temperature <= 0) return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());

  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) candidates_.push_back({static_cast<TokenId>(i), logits[i]});
  const auto better = [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; };
  const std::size_t k = options_.top_k ? std::min<std::size_t>(options_.top_k, candidates_.size()) : candidates_.size();
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k), candidates_.end(), better);
  candidates_.resize(k);

  const float top = candidates_.front().logit;
  double total = 0;
  for (const Candidate& c : candidates_) total += std::exp(static_cast<double>(c.logit - top));
  std::size_t kept = 0;
  double mass = 0;
  for (const Candidate& c : candidates_) {
    const double p = std::exp(static_cast<double>(c.logit - top)) / total;
    if (kept > 0 && (mass >= static_cast<double>(options_.top_p) || std::exp(static_cast<double>(c.logit - top)) < static_cast<double>(options_.min_p))) break;
    mass += p;
    ++kept;
  }
  candidates_.resize(kept);
  std::vector<double> weights;
  for (const Candidate& c : candidates_) weights.push_back(std::exp(static_cast<double>((c.logit - top) / options_.temperature)));
  std::discrete_distribution<std::size_t> draw(weights.begin(), weights.end());
  return candidates_[draw(random_)].id;
}

}  // namespace snug
