#include "serve/prefix_store.hpp"

#include <algorithm>

#include "generate/common_prefix.hpp"

namespace snug {

std::size_t PrefixStore::add(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence) {
  nodes_.remove_if([&](const Node& node) { return node.tokens == tokens; });
  nodes_.push_front({.tokens = std::move(tokens), .sequence = std::move(sequence)});
  return nodes_.size() > most_ ? drop_oldest() : 0;
}

std::size_t PrefixStore::longest(std::span<const TokenId> tokens) const {
  std::size_t most = 0;
  for (const Node& node : nodes_) most = std::max(most, common_prefix(node.tokens, tokens));
  return std::min(most, tokens.size() - 1);
}

std::unique_ptr<Sequence> PrefixStore::find(std::span<const TokenId> tokens) {
  // A sequence may have to go back further than it is asked to: one that shares less may give more.
  tokens = tokens.first(tokens.size() - 1);
  std::vector<std::pair<std::size_t, std::list<Node>::iterator>> order;
  for (auto node = nodes_.begin(); node != nodes_.end(); ++node)
    if (const std::size_t shared = common_prefix(node->tokens, tokens); shared > 0) order.emplace_back(shared, node);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::unique_ptr<Sequence> best;
  auto from = nodes_.end();
  for (const auto& [shared, node] : order) {
    if (best && shared <= best->length()) break;
    auto fork = node->sequence->fork();
    const std::size_t length = fork->truncate(shared);
    if (length > (best ? best->length() : 0)) best = std::move(fork), from = node;
  }
  if (from != nodes_.end()) {
    from->used = std::chrono::steady_clock::now();
    nodes_.splice(nodes_.begin(), nodes_, from);
  }
  return best;
}

std::size_t PrefixStore::drop_oldest() {
  if (nodes_.empty()) return 0;
  const std::size_t tokens = nodes_.back().tokens.size();
  nodes_.pop_back();
  return tokens;
}

}  // namespace snug
