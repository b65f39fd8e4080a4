#pragma once
/// Greedy pair merging, shared by both kinds of BPE: always the best adjacent pair, the leftmost of equals.

#include <cstdint>
#include <queue>
#include <string_view>
#include <vector>

namespace snug {

/// Merges neighbours of `symbols` (consecutive pieces of one text). `rank(left, right)` says how good a merge is (lower
/// is better, kNoMerge: not possible); only asked for current neighbours. O(n log n). What rank() returns for
/// neighbours that cannot be merged.
inline constexpr double kNoMerge = -1e300;

template <class Rank>
std::vector<std::string_view> merge_symbols(const std::vector<std::string_view>& symbols, Rank rank) {
  struct Node {
    std::string_view text;
    std::int32_t previous, next;
  };
  struct Pair {
    double rank;
    std::int32_t left, right;
    std::size_t size;  ///< of both texts, to notice that one of them has changed
    bool operator<(const Pair& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  std::vector<Node> nodes;
  const auto count = static_cast<std::int32_t>(symbols.size());
  nodes.reserve(symbols.size());
  for (std::int32_t i = 0; i < count; ++i)
    nodes.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  const auto node = [&](std::int32_t i) -> Node& { return nodes[static_cast<std::size_t>(i)]; };
  std::priority_queue<Pair> queue;
  const auto offer = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    const double r = rank(node(left).text, node(right).text);
    if (r != kNoMerge) queue.push({r, left, right, node(left).text.size() + node(right).text.size()});
  };
  for (std::int32_t i = 1; i < count; ++i) offer(i - 1, i);
  while (!queue.empty()) {
    const Pair best = queue.top();
    queue.pop();
    Node &left = node(best.left), &right = node(best.right);
    if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != best.size) continue;
    left.text = {left.text.data(), best.size};
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) node(right.next).previous = best.left;
    offer(left.previous, best.left);
    offer(best.left, left.next);
  }
  std::vector<std::string_view> result;
  for (const Node& n : nodes)
    if (!n.text.empty()) result.push_back(n.text);
  return result;
}

}  // namespace snug
