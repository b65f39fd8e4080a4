#pragma once
/// Whose the KV cache is: what requests at work have, and what is kept for later ones.

#include <chrono>

#include "model/model.hpp"
#include "serve/prefix_store.hpp"

namespace snug {

/// A kept sequence. In their order, each shares its first `shared` tokens with the one before it and no more with any
/// other before that: together they are a tree (nodes are where neighbours part).
struct KeptStatus {
  std::size_t tokens = 0, shared = 0;
  Bytes bytes = 0, own = 0;  ///< of its pages in memory; of those that no other has: what goes when it goes alone
  std::chrono::steady_clock::time_point used{};  ///< last
};

struct KvView {
  KvUse use;
  Bytes running = 0;  ///< of what requests at work have, pages that several have counted once
  Bytes kept = 0;     ///< of what only kept sequences have: it can go at once
  std::vector<KeptStatus> tree;
};

/// Takes a moment when there are many pages: for who looks, not for each step.
KvView kv_view(const Model& model, const std::vector<const Sequence*>& running, const PrefixStore& prefixes);

}  // namespace snug
