#include "kv/page_pool.hpp"

#include <algorithm>
#include <cassert>

namespace snug {

namespace {
constexpr std::size_t kSlabBytes = 2 * kMiB;  // a huge page; the price is at most one part-filled slab per page size
}

PagePool::PagePool(Ledger& ledger, std::size_t page_bytes)
    : ledger_(ledger),
      page_bytes_(round_up(page_bytes, 64)),
      slab_pages_(std::max<std::size_t>(1, kSlabBytes / page_bytes_)) {}

std::byte* PagePool::allocate() {
  auto slab = std::find_if(slabs_.begin(), slabs_.end(), [](const Slab& s) { return !s.free.empty(); });
  if (slab == slabs_.end()) {
    Slab fresh;
    fresh.memory = Buffer(ledger_, Tag::kv, slab_pages_ * page_bytes_);
    fresh.free.reserve(slab_pages_);
    for (std::size_t i = slab_pages_; i-- > 0;) fresh.free.push_back(fresh.memory.data() + i * page_bytes_);
    slabs_.push_back(std::move(fresh));
    slab = std::prev(slabs_.end());
  }
  std::byte* page = slab->free.back();
  slab->free.pop_back();
  ++slab->used;
  return page;
}

void PagePool::free(std::byte* page) noexcept {
  const auto slab = std::find_if(slabs_.begin(), slabs_.end(), [page](const Slab& s) {
    return page >= s.memory.data() && page < s.memory.data() + s.memory.size();
  });
  assert(slab != slabs_.end());
  slab->free.push_back(page);
  if (--slab->used == 0) slabs_.erase(slab);
}

}  // namespace snug
