#pragma once
/// Sequences that are kept for requests that begin alike, in memory and on the disk. Pages are shared with whoever
/// forked from them, so what a node costs is what no other has; together they are a tree whose nodes nobody had to
/// link.

#include <chrono>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "model/sequence.hpp"
#include "text/tokenizer.hpp"

namespace snug {

/// Which node leaves first: the one used least recently, or the one that is likely to cost least, by how often it was
/// used and what reading its tokens again would take (GDSF, Cherkasova 1998).
enum class Eviction { least_recent, least_cost };

/// Not thread-safe.
class PrefixStore {
public:
  PrefixStore(std::size_t most, Eviction eviction) : most_(most), eviction_(eviction) {}

  /// Keeps a sequence that holds these tokens; what it makes needless goes (the same tokens, or its own beginning that
  /// nobody else used), and so does another when there are too many: then returns its number of tokens, else 0.
  std::size_t add(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence);
  /// A fork of what shares most with `tokens`, of at most all of them but the last; it may be swapped out. Null:
  /// nothing shares anything. Throws OutOfBudget.
  std::unique_ptr<Sequence> find(std::span<const TokenId> tokens);
  /// Tokens that find() would give.
  std::size_t longest(std::span<const TokenId> tokens) const;
  /// The same of sequences in memory. What would give it is not the next to leave.
  std::size_t longest_in_memory(std::span<const TokenId> tokens);

  /// In memory, and first to leave; null: there is none.
  const Sequence* next_to_leave() const;
  /// It leaves memory: for the disk, or for good. Returns its number of tokens; 0: there is none.
  std::size_t swap_out_next();
  std::size_t drop_next();
  /// The same of one on the disk.
  std::size_t drop_swapped();

  /// A sequence that is kept, and its tokens.
  struct Node {
    std::vector<TokenId> tokens;
    std::unique_ptr<Sequence> sequence;
    std::chrono::steady_clock::time_point used{};  ///< last
    double uses = 1, score = 0;
  };
  /// Calls f(node) with each, the one used last first.
  template <class F>
  void for_each(F&& f) const {
    for (const Node& node : nodes_) f(node);
  }
  std::size_t size() const { return nodes_.size(); }
  /// Takes out the one used last. REQUIRES: size() > 0.
  Node take_newest();

private:
  using Place = std::list<Node>::iterator;
  void touch(Place node);
  Place least(bool swapped);
  std::size_t drop(Place node);

  std::size_t most_;
  Eviction eviction_;
  std::list<Node> nodes_;  ///< the one used last comes first
  double age_ = 0;         ///< score of what left last
};

}  // namespace snug
