#pragma once
/// In which order a batch is answered, after BatchLLM (arXiv 2412.03594): requests that begin alike run together, those
/// that write much for what they read come first.

#include <cstddef>
#include <span>
#include <vector>

#include "text/tokenizer.hpp"

namespace snug {

struct BatchItem {
  std::span<const TokenId> prompt;  ///< not empty
  std::size_t answer = 0;           ///< tokens that it will write, as far as that can be known
};

struct BatchPlan {
  struct Step {
    std::size_t item;
    /// Lengths, increasing, at which other items leave this one's prompt; each less than the prompt's.
    std::vector<std::size_t> shared;
  };
  std::vector<Step> order;          ///< every item once
  std::size_t groups = 0;           ///< of at least two items, each with its own common beginning
  std::size_t prompt_tokens = 0;    ///< of all items
  std::size_t group_savings = 0;    ///< of them need not be read when each group reads its beginning once
  std::size_t distinct_tokens = 0;  ///< of them are left when whatever the tree shares is read once
};

/// Beginnings count in steps of this many tokens: less is read again sooner than kept.
inline constexpr std::size_t kLeastShared = 32;

/// The tree of all prompts; the cut through it into groups that saves most tokens when a group shares one beginning
/// (by dynamic programming over nodes and their ancestors); groups, and what they consist of, by their ratio of answers
/// to tokens that are read.
BatchPlan plan_batch(std::span<const BatchItem> items);

}  // namespace snug
