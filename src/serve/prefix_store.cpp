#include "serve/prefix_store.hpp"

#include <algorithm>

#include "generate/common_prefix.hpp"

namespace snug {

std::size_t PrefixStore::add(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence) {
  double uses = 1;
  nodes_.remove_if([&](const Node& node) {
    const std::size_t size = node.tokens.size();
    if (size > tokens.size() || common_prefix(node.tokens, tokens) < size) return false;
    if (size == tokens.size())
      uses = std::max(uses, node.uses);
    else if (node.uses > 1 || sequence->fork()->truncate(size) < size)
      return false;
    return true;
  });
  nodes_.push_front({std::move(tokens), std::move(sequence), std::chrono::steady_clock::now(), uses});
  touch(nodes_.begin());
  if (nodes_.size() <= most_) return 0;
  const std::size_t dropped = drop_swapped();
  return dropped > 0 ? dropped : drop_next();
}

void PrefixStore::touch(Place node) {
  nodes_.splice(nodes_.begin(), nodes_, node);
  // A token costs about the same bytes and the same time whatever the sequence.
  node->score = age_ + (eviction_ == Eviction::least_cost ? node->uses : 0);
}

std::size_t PrefixStore::longest(std::span<const TokenId> tokens) const {
  std::size_t most = 0;
  for (const Node& node : nodes_) most = std::max(most, common_prefix(node.tokens, tokens));
  return std::min(most, tokens.size() - 1);
}

std::size_t PrefixStore::longest_in_memory(std::span<const TokenId> tokens) {
  std::size_t most = 0;
  auto best = nodes_.end();
  for (auto node = nodes_.begin(); node != nodes_.end(); ++node)
    if (const std::size_t shared = common_prefix(node->tokens, tokens); shared > most && !node->sequence->swapped())
      most = shared, best = node;
  if (best != nodes_.end()) touch(best);
  return std::min(most, tokens.size() - 1);
}

std::unique_ptr<Sequence> PrefixStore::find(std::span<const TokenId> tokens) {
  // A sequence may have to go back further than it is asked to: one that shares less may give more.
  tokens = tokens.first(tokens.size() - 1);
  std::vector<std::pair<std::size_t, Place>> order;
  for (auto node = nodes_.begin(); node != nodes_.end(); ++node)
    if (const std::size_t shared = common_prefix(node->tokens, tokens); shared > 0) order.emplace_back(shared, node);
  // Of two that give the same, the one in memory.
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first, !a.second->sequence->swapped()) > std::pair(b.first, !b.second->sequence->swapped());
  });
  std::unique_ptr<Sequence> best;
  auto from = nodes_.end();
  for (const auto& [shared, node] : order) {
    if (best && shared <= best->length()) break;
    auto fork = node->sequence->fork();
    const std::size_t length = fork->truncate(shared);
    if (length > (best ? best->length() : 0)) best = std::move(fork), from = node;
  }
  if (from == nodes_.end()) return best;
  ++from->uses;
  from->used = std::chrono::steady_clock::now();
  touch(from);
  return best;
}

PrefixStore::Place PrefixStore::least(bool swapped) {
  auto least = nodes_.end();
  for (auto node = nodes_.begin(); node != nodes_.end(); ++node)
    if (node->sequence->swapped() == swapped && (least == nodes_.end() || node->score <= least->score)) least = node;
  return least;
}

const Sequence* PrefixStore::next_to_leave() const {
  const auto node = const_cast<PrefixStore*>(this)->least(false);
  return node == nodes_.end() ? nullptr : node->sequence.get();
}

std::size_t PrefixStore::swap_out_next() {
  const auto node = least(false);
  if (node == nodes_.end()) return 0;
  age_ = std::max(age_, node->score);
  node->sequence->swap_out();
  return node->sequence->swapped() ? node->tokens.size() : 0;
}

std::size_t PrefixStore::drop(Place node) {
  if (node == nodes_.end()) return 0;
  const std::size_t tokens = node->tokens.size();
  nodes_.erase(node);
  return tokens;
}

std::size_t PrefixStore::drop_next() {
  const auto node = least(false);
  if (node != nodes_.end()) age_ = std::max(age_, node->score);
  return drop(node);
}

std::size_t PrefixStore::drop_swapped() {
  return drop(least(true));
}

PrefixStore::Node PrefixStore::take_newest() {
  Node node = std::move(nodes_.front());
  nodes_.pop_front();
  return node;
}

}  // namespace snug
