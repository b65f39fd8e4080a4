#include "serve/batch_plan.hpp"

#include <algorithm>
#include <numeric>

#include "generate/common_prefix.hpp"

namespace snug {

namespace {

constexpr std::size_t kRoot = 0;

/// A beginning that at least two items have in common (the root: the empty one).
struct Node {
  std::size_t depth;                ///< its tokens
  std::size_t parent;               ///< of the root: itself
  std::size_t level;                ///< nodes above it
  std::size_t first, last;          ///< of the sorted items, those that begin with it
  std::vector<std::size_t> leaves;  ///< of those, the ones that no child has
  /// Tokens that are not read, of all items below, when the deepest group above is that of the ancestor at level i; the
  /// last one: of this node.
  std::vector<std::size_t> saved;
  bool open = false;  ///< has a group: its beginning is read once for the items below that have no deeper one
};

/// Items that stay together, in their order.
struct Block {
  std::vector<std::size_t> items;
  std::size_t read = 0, answer = 0;  ///< tokens
};

bool writes_more(const Block& a, const Block& b) {
  // a.answer / a.read > b.answer / b.read
  return static_cast<double>(a.answer) * static_cast<double>(b.read) >
         static_cast<double>(b.answer) * static_cast<double>(a.read);
}

class Planner {
public:
  explicit Planner(std::span<const BatchItem> items) : items_(items), sorted_(items.size()), common_(items.size()) {
    std::iota(sorted_.begin(), sorted_.end(), std::size_t{0});
    std::stable_sort(sorted_.begin(), sorted_.end(), [&](std::size_t a, std::size_t b) {
      return std::lexicographical_compare(items[a].prompt.begin(), items[a].prompt.end(), items[b].prompt.begin(),
                                          items[b].prompt.end());
    });
    for (std::size_t i = 1; i < items.size(); ++i)
      common_[i] = common_prefix(items[sorted_[i - 1]].prompt, items[sorted_[i]].prompt);
  }

  BatchPlan plan() {
    grow();
    choose_groups();
    BatchPlan plan;
    count(plan);
    for (const Block& block : ordered_blocks())
      for (const std::size_t item : block.items) plan.order.push_back({item, {}});
    mark_shared(plan);
    return plan;
  }

private:
  /// Parents come before their children.
  void grow() {
    nodes_.push_back({0, kRoot, 0, 0, items_.size(), {}, {}});
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      const Node node = nodes_[n];
      const std::size_t least = node.depth + kLeastShared;
      for (std::size_t i = node.first; i < node.last;) {
        std::size_t end = i + 1, depth = ~std::size_t{0};
        for (; end < node.last && common_[end] >= least; ++end) depth = std::min(depth, common_[end]);
        if (end == i + 1)
          nodes_[n].leaves.push_back(sorted_[i]);
        else
          nodes_.push_back({depth, n, node.level + 1, i, end, {}, {}});
        i = end;
      }
    }
  }

  /// A group saves its beginning for all of its items but one. An item is best in the deepest group above it, so what
  /// a subtree saves depends only on where the deepest group above the subtree is. More than `level` is never asked.
  void choose_groups() {
    for (Node& node : nodes_) node.saved.assign(node.level + 1, 0);
    std::vector<std::size_t> above;  // levels at which a node would rather have a group of its own
    above.resize(nodes_.size());
    for (std::size_t n = nodes_.size(); n-- > 0;) {
      Node& node = nodes_[n];
      std::size_t ancestor = n;
      for (std::size_t level = node.level + 1; level-- > 0; ancestor = nodes_[ancestor].parent)
        node.saved[level] += node.leaves.size() * nodes_[ancestor].depth;
      if (n == kRoot) continue;
      // At least two items below have its whole beginning, so this is not less than 0.
      const std::size_t own = node.saved[node.level] - node.depth;
      Node& parent = nodes_[node.parent];
      for (std::size_t level = 0; level <= parent.level; ++level) {
        if (own > node.saved[level]) above[n] = level + 1;
        parent.saved[level] += std::max(own, node.saved[level]);
      }
      node.saved = {};
    }
    // From the root down it is known where the deepest group above is.
    std::vector<std::size_t> deepest(nodes_.size(), 0);  // its level
    nodes_[kRoot].open = true;
    for (std::size_t n = 1; n < nodes_.size(); ++n) {
      const std::size_t level = deepest[nodes_[n].parent];
      nodes_[n].open = level < above[n];
      deepest[n] = nodes_[n].open ? nodes_[n].level : level;
    }
  }

  void count(BatchPlan& plan) const {
    for (const BatchItem& item : items_) plan.prompt_tokens += item.prompt.size();
    plan.group_savings = nodes_[kRoot].saved[0];
    plan.distinct_tokens = plan.prompt_tokens;
    for (std::size_t n = 1; n < nodes_.size(); ++n) {
      plan.groups += nodes_[n].open;
      const std::size_t own = nodes_[n].depth - nodes_[nodes_[n].parent].depth;
      plan.distinct_tokens -= own * (nodes_[n].last - nodes_[n].first - 1);
    }
  }

  static Block joined(std::vector<Block> blocks) {
    std::stable_sort(blocks.begin(), blocks.end(), writes_more);
    Block all;
    for (const Block& block : blocks) {
      all.items.insert(all.items.end(), block.items.begin(), block.items.end());
      all.read += block.read, all.answer += block.answer;
    }
    return all;
  }

  /// Within a group, what shares more than the group does stays together too.
  std::vector<Block> ordered_blocks() const {
    std::vector<std::vector<Block>> parts(nodes_.size());  // of each node
    for (std::size_t n = nodes_.size(); n-- > 0;) {
      const Node& node = nodes_[n];
      for (const std::size_t item : node.leaves)
        parts[n].push_back(
            {{item}, std::max<std::size_t>(1, items_[item].prompt.size() - node.depth), items_[item].answer});
      if (n == kRoot) break;
      const std::size_t above = node.open ? kRoot : node.parent;
      Block block = joined(std::move(parts[n]));
      block.read += node.depth - nodes_[above].depth;
      if (!block.items.empty()) parts[above].push_back(std::move(block));
    }
    std::stable_sort(parts[kRoot].begin(), parts[kRoot].end(), writes_more);
    return std::move(parts[kRoot]);
  }

  void mark_shared(BatchPlan& plan) const {
    std::vector<std::size_t> node_of(items_.size());
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      for (const std::size_t item : nodes_[n].leaves) node_of[item] = n;
    for (BatchPlan::Step& step : plan.order) {
      const std::size_t most = items_[step.item].prompt.size() - 1;
      for (std::size_t n = node_of[step.item]; n != kRoot; n = nodes_[n].parent)
        step.shared.push_back(std::min(most, nodes_[n].depth));
      std::reverse(step.shared.begin(), step.shared.end());
    }
  }

  std::span<const BatchItem> items_;
  std::vector<std::size_t> sorted_;  ///< items by their prompts
  std::vector<std::size_t> common_;  ///< tokens that each of these shares with the one before it
  std::vector<Node> nodes_;
};

}  // namespace

BatchPlan plan_batch(std::span<const BatchItem> items) {
  return Planner(items).plan();
}

}  // namespace snug
