#include "kv/page_pool.hpp"

#include <algorithm>
#include <cassert>
#include <limits>

namespace snug {

namespace {
/// Pages that come together mostly go together: with slabs this small, what finished sequences leave between others is
/// about 1% (bench/paging.cpp; 18% with huge pages, which attention would read 4% faster).
constexpr std::size_t kSlabBytes = 256 * kKiB;
}  // namespace

PageRef::PageRef(const PageRef& other) noexcept : data_(other.data_), slab_(other.slab_) {
  if (data_) ++slab_->references[slab_->index(data_)];
}

PageRef::~PageRef() {
  if (!data_) return;
  const std::size_t page = slab_->index(data_);
  if (--slab_->references[page] == 0) slab_->pool->free(*slab_, page);
}

bool PageRef::shared() const {
  return data_ && slab_->references[slab_->index(data_)] > 1;
}

std::size_t PageRef::bytes() const {
  return slab_->pool->page_bytes();
}

std::shared_ptr<PageCopy> PageRef::copy() const {
  return data_ && !slab_->copies.empty() ? slab_->copies[slab_->index(data_)] : nullptr;
}

void PageRef::set_copy(std::shared_ptr<PageCopy> copy) const {
  slab_->copies.resize(slab_->references.size());
  copy->data = data_;
  copy->slab = slab_;
  slab_->copies[slab_->index(data_)] = std::move(copy);
}

void PageRef::forget_copy() const noexcept {
  if (data_) slab_->forget_copy(slab_->index(data_));
}

PageRef PageRef::of(const PageCopy& copy) noexcept {
  if (!copy.data) return {};
  ++copy.slab->references[copy.slab->index(copy.data)];
  return {copy.data, copy.slab};
}

void PageSlab::forget_copy(std::size_t page) noexcept {
  if (copies.empty() || !copies[page]) return;
  const std::shared_ptr<PageCopy> copy = std::move(copies[page]);
  copies[page] = nullptr;
  copy->data = nullptr;
}

std::size_t PageSlab::index(const std::byte* page) const {
  return static_cast<std::size_t>(page - memory.data()) / pool->page_bytes();
}

PagePool::PagePool(Ledger& ledger, std::size_t page_bytes)
    : ledger_(ledger),
      page_bytes_(round_up(page_bytes, 64)),
      slab_pages_(std::max<std::size_t>(1, kSlabBytes / page_bytes_)) {}

PageRef PagePool::allocate() {
  // The fullest slab is used first, so that others become empty.
  auto slab = slabs_.lower_bound({1, nullptr});
  if (slab == slabs_.end()) {
    auto fresh = std::make_unique<PageSlab>();
    fresh->pool = this;
    fresh->memory = Buffer(ledger_, Tag::kv, slab_pages_ * page_bytes_);
    fresh->references.resize(slab_pages_);
    for (std::size_t i = slab_pages_; i-- > 0;) fresh->free.push_back(static_cast<std::uint32_t>(i));
    const Key key{slab_pages_, fresh.get()};
    slab = slabs_.emplace(key, std::move(fresh)).first;
  }
  PageSlab& s = *slab->second;
  const std::size_t page = s.free.back();
  s.free.pop_back();
  s.references[page] = 1;
  ++used_pages_;
  move_to(slab, s.free.size());
  return {s.memory.data() + page * page_bytes_, &s};
}

void PagePool::free(PageSlab& slab, std::size_t page) noexcept {
  const auto at = slabs_.find({slab.free.size(), &slab});
  assert(at != slabs_.end());
  --used_pages_;
  slab.forget_copy(page);
  slab.free.push_back(static_cast<std::uint32_t>(page));  // there is room: it has been as long before
  if (slab.free.size() == slab_pages_)
    slabs_.erase(at);
  else
    move_to(at, slab.free.size());
}

void PagePool::move_to(Slabs::iterator slab, std::size_t free_pages) noexcept {
  auto node = slabs_.extract(slab);
  node.key().first = free_pages;
  slabs_.insert(std::move(node));
}

}  // namespace snug
