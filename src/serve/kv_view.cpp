#include "serve/kv_view.hpp"

#include <algorithm>

#include "generate/common_prefix.hpp"

namespace snug {

namespace {

struct Total {
  Bytes all = 0, own = 0;
};
Total total_of(const std::vector<HeldPage>& pages) {
  Total total;
  for (const HeldPage& page : pages) {
    total.all += page.bytes;
    if (!page.shared) total.own += page.bytes;
  }
  return total;
}

std::vector<HeldPage> pages_of(const Sequence& sequence) {
  std::vector<HeldPage> pages;
  sequence.add_pages(pages);
  return pages;
}

std::vector<KeptStatus> tree_of(const PrefixStore& prefixes, Bytes& states) {
  std::vector<std::pair<const std::vector<TokenId>*, KeptStatus>> nodes;
  prefixes.for_each([&](const PrefixStore::Node& node) {
    const Total pages = total_of(pages_of(*node.sequence));
    const Bytes bytes = node.sequence->memory_bytes();
    // What is not in pages (the state of recurrent layers) nobody shares.
    const Bytes state = bytes - pages.all;
    states += state;
    nodes.emplace_back(&node.tokens, KeptStatus{node.tokens.size(), 0, bytes, pages.own + state, node.used});
  });
  std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return *a.first < *b.first; });
  std::vector<KeptStatus> tree;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (i > 0) nodes[i].second.shared = common_prefix(*nodes[i - 1].first, *nodes[i].first);
    tree.push_back(nodes[i].second);
  }
  return tree;
}

}  // namespace

KvView kv_view(const Model& model, const std::vector<const Sequence*>& running, const PrefixStore& prefixes) {
  KvView view;
  view.use = model.kv_use();
  std::vector<HeldPage> pages;
  Bytes running_states = 0, kept_states = 0;
  for (const Sequence* sequence : running) {
    const std::size_t first = pages.size();
    sequence->add_pages(pages);
    running_states += sequence->memory_bytes();
    for (std::size_t i = first; i < pages.size(); ++i) running_states -= pages[i].bytes;
  }
  std::sort(pages.begin(), pages.end(), [](const HeldPage& a, const HeldPage& b) { return a.data < b.data; });
  pages.erase(std::unique(pages.begin(), pages.end(), [](const auto& a, const auto& b) { return a.data == b.data; }),
              pages.end());
  const Bytes in_pages = total_of(pages).all;
  view.tree = tree_of(prefixes, kept_states);
  view.running = in_pages + running_states;
  view.kept = view.use.in_memory() - in_pages + kept_states;
  return view;
}

}  // namespace snug
