#include "base/page_stock.hpp"

#include <sys/mman.h>

#include <cstdint>

namespace snug {

namespace {

bool move_page(std::byte* from, std::byte* to) {
#ifdef MREMAP_DONTUNMAP
  return mremap(from, kHugePage, kHugePage, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to;
#else
  (void)from, (void)to;
  return false;
#endif
}

}  // namespace

PageStock::PageStock(Bytes most) {
  const std::size_t pages = most / kHugePage;
  size_ = (pages + 1) * kHugePage;
  void* mapped = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return;  // then it never opens
  begin_ = static_cast<std::byte*>(mapped);
  auto* page = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<std::uintptr_t>(begin_), kHugePage));
  full_.reserve(pages), empty_.reserve(pages);  // put() and take() need no memory
  for (std::size_t i = 0; i < pages; ++i, page += kHugePage) empty_.push_back(page);
}

PageStock::~PageStock() {
  if (begin_) munmap(begin_, size_);
}

void PageStock::close() {
  open_ = false;
  for (std::byte* page : full_) {
    madvise(page, kHugePage, MADV_DONTNEED);
    empty_.push_back(page);
  }
  full_.clear();
}

bool PageStock::put(std::byte* page) noexcept {
  if (!open_ || empty_.empty() || !move_page(page, empty_.back())) return false;
  full_.push_back(empty_.back());
  empty_.pop_back();
  return true;
}

bool PageStock::take(std::byte* place) noexcept {
  if (full_.empty() || !move_page(full_.back(), place)) return false;
  empty_.push_back(full_.back());
  full_.pop_back();
  return true;
}

}  // namespace snug
