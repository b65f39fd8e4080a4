#pragma once
/// Memory for KV pages of one size: slabs charged to the ledger, pages handed out from a free list.

#include <cstddef>
#include <vector>

#include "base/buffer.hpp"

namespace snug {

class PagePool {
public:
  PagePool(Ledger& ledger, std::size_t page_bytes);

  /// A page of page_bytes(), 64-byte aligned, contents unspecified but finite as bf16. Throws OutOfBudget.
  std::byte* allocate();
  void free(std::byte* page) noexcept;
  std::size_t page_bytes() const { return page_bytes_; }
  /// What the pool grows by.
  std::size_t slab_bytes() const { return slab_pages_ * page_bytes_; }

private:
  /// Pages of one mapping; it goes back to the system when all of them are free.
  struct Slab {
    Buffer memory;
    std::vector<std::byte*> free;
    std::size_t used = 0;
  };

  Ledger& ledger_;
  std::size_t page_bytes_, slab_pages_;
  std::vector<Slab> slabs_;
};

}  // namespace snug
