#pragma once
/// Sequences that are kept for requests that begin alike. Pages are shared with whoever forked from them, so what a
/// node costs is what no other has; together they are a tree whose nodes nobody had to link.

#include <chrono>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "model/sequence.hpp"
#include "text/tokenizer.hpp"

namespace snug {

/// Not thread-safe.
class PrefixStore {
public:
  explicit PrefixStore(std::size_t most) : most_(most) {}

  /// A sequence that is kept, and its tokens.
  struct Node {
    std::vector<TokenId> tokens;
    std::unique_ptr<Sequence> sequence;
    std::chrono::steady_clock::time_point used = std::chrono::steady_clock::now();  ///< last
  };

  /// Keeps a sequence that holds these tokens; what it makes needless goes (the same tokens), and so does the one used
  /// least recently when there are too many: then returns its number of tokens, else 0.
  std::size_t add(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence);
  /// A fork of what shares most with `tokens`, of at most all of them but the last; null: nothing shares anything.
  /// Throws OutOfBudget.
  std::unique_ptr<Sequence> find(std::span<const TokenId> tokens);
  /// Tokens that find() would give.
  std::size_t longest(std::span<const TokenId> tokens) const;
  /// Gives up the one used least recently. Returns its number of tokens; 0: there is none.
  std::size_t drop_oldest();
  std::size_t size() const { return nodes_.size(); }
  /// Calls f(node) with each, the one used last first.
  template <class F>
  void for_each(F&& f) const {
    for (const Node& node : nodes_) f(node);
  }

private:
  std::size_t most_;
  std::list<Node> nodes_;  ///< the one used last comes first
};

}  // namespace snug
