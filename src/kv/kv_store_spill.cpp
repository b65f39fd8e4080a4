// Pages of the store that go to the disk (kv_spill.hpp), and come from there for attention.

#include <algorithm>

#include "kv/kv_store.hpp"

namespace snug {

std::size_t KvStore::spill_page_bytes(std::size_t layer) const {
  return format().coded() ? format().page_bytes(layer) : shapes()[layer].page_bytes();
}

std::size_t KvStore::extent_pages(std::size_t layer) const {
  return pools_.spill()->extent_pages(spill_page_bytes(layer));
}

std::size_t KvStore::spilled_pages(std::size_t layer) const {
  return spilled_[layer].empty() ? 0 : spilled_[layer].size() * extent_pages(layer);
}

std::size_t KvStore::spilled_parts(std::size_t layer) const {
  return spilled_pages(layer) / kPartPages;
}

bool KvStore::may_spill(std::size_t layer) const {
  if (shapes()[layer].kv_heads == 0 || shapes()[layer].window > 0) return false;
  const std::size_t begin = spilled_pages(layer), end = begin + extent_pages(layer);
  if (!format().coded()) return end + kRecentPages <= stored_ / kPageTokens;
  // Pages that are there coded and no longer in bf16.
  return end <= coded_count_[layer] && end < pages_[layer].size() && !pages_[layer][end - 1];
}

void KvStore::spill_extent(std::size_t layer) {
  auto& list = format().coded() ? coded_[layer] : pages_[layer];
  const std::size_t begin = spilled_pages(layer), count = extent_pages(layer);
  std::vector<const std::byte*> pages;
  for (std::size_t page = begin; page < begin + count; ++page) pages.push_back(list[page].data());
  spilled_[layer].push_back(pools_.spill()->write(pages, spill_page_bytes(layer)));
  for (std::size_t page = begin; page < begin + count; ++page) list[page] = {};
}

void KvStore::make_room(Bytes bytes) {
  while (pools_.used_bytes() + bytes > pools_.spill()->limit()) {
    std::size_t least = shapes().size();
    for (std::size_t layer = 0; layer < shapes().size(); ++layer)
      if (may_spill(layer) && (least == shapes().size() || spilled_pages(layer) < spilled_pages(least))) least = layer;
    if (least == shapes().size()) return;
    spill_extent(least);
  }
}

KvStore::Loan KvStore::borrow(std::size_t layer, std::size_t part) {
  const std::size_t pages = extent_pages(layer), bytes = spill_page_bytes(layer);
  const std::size_t first = part * kPartPages / pages,
                    end = std::min(spilled_[layer].size(), first + pools_.spill()->window());
  give_back();
  lent_.resize(first * pages, nullptr);
  for (std::size_t extent = first; extent < end; ++extent) {
    leases_.push_back(pools_.spill()->read(*spilled_[layer][extent]));
    for (std::size_t page = 0; page < pages; ++page) lent_.push_back(leases_.back().data + page * bytes);
  }
  return {*this, end * pages / kPartPages};
}

void KvStore::give_back() noexcept {
  lent_.clear();
  leases_.clear();
}

const std::byte* KvStore::raw_page(std::size_t layer, std::size_t page) const {
  if (const std::byte* there = pages_[layer][page].data()) return there;
  return !format().coded() && page < lent_.size() ? lent_[page] : nullptr;
}

const std::byte* KvStore::coded_page(std::size_t layer, std::size_t page) const {
  if (page < coded_[layer].size())
    if (const std::byte* there = coded_[layer][page].data()) return there;
  return page >= kFirstPages && page < lent_.size() ? lent_[page] : nullptr;
}

}  // namespace snug
