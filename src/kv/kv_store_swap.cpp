// Pages of the store that leave memory while nobody computes with it (kv_swap.hpp).

#include <algorithm>
#include <tuple>

#include "kv/kv_store.hpp"

namespace snug {

void KvStore::swap_out() {
  std::vector<PageRef> leave;
  std::vector<std::tuple<PageList, std::size_t, std::size_t>> places;
  for (std::size_t layer = 0; layer < pages_.size(); ++layer)
    for (const PageList list : {PageList::raw, PageList::coded, PageList::cold}) {
      std::vector<PageRef>& pages = list_of(layer, list);
      for (std::size_t page = 0; page < pages.size(); ++page)
        if (pages[page]) {
          places.emplace_back(list, layer, page);
          leave.push_back(pages[page]);
        }
    }
  pools_.swap()->write(leave);
  swapped_.reserve(swapped_.size() + places.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto [list, layer, page] = places[i];
    swapped_.push_back({list, layer, page, leave[i].copy()});
    list_of(layer, list)[page] = {};
  }
  for (Chain& chain : chains_) chain = {};
}

std::shared_ptr<const KvTransfer> KvStore::swap_in() {
  std::vector<PageRef> back;
  std::vector<KvSwap::Return> read;
  for (const Swapped& s : swapped_) {
    // Others may have it in memory still, or again.
    PageRef page = PageRef::of(*s.copy);
    if (!page) {
      page = pool_of(s.layer, s.list).allocate();
      read.push_back({page, s.copy});
    }
    back.push_back(std::move(page));
  }
  auto transfer = pools_.swap()->read(std::move(read));
  for (std::size_t i = 0; i < swapped_.size(); ++i)
    list_of(swapped_[i].layer, swapped_[i].list)[swapped_[i].page] = std::move(back[i]);
  swapped_.clear();
  return transfer;
}

bool KvStore::is_swapped(std::size_t layer, PageList list, std::size_t page) const {
  return std::any_of(swapped_.begin(), swapped_.end(),
                     [&](const Swapped& s) { return s.layer == layer && s.list == list && s.page == page; });
}

void KvStore::drop_swapped() noexcept {
  std::erase_if(swapped_, [this](const Swapped& s) { return s.page >= list_of(s.layer, s.list).size(); });
}

}  // namespace snug
