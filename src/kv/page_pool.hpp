#pragma once
/// Memory for KV pages of one size: slabs charged to the ledger, pages handed out as handles that may be shared
/// (PagedAttention, arXiv 2309.06180). Not thread-safe.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/buffer.hpp"

namespace snug {

class PagePool;
struct PageCopy;

/// Pages of one mapping; it goes back to the system when all of them are free.
struct PageSlab {
  PagePool* pool;
  Buffer memory;
  std::vector<std::uint32_t> references;          ///< to each page
  std::vector<std::uint32_t> free;                ///< pages
  std::vector<std::shared_ptr<PageCopy>> copies;  ///< of each page, once there is one

  std::size_t index(const std::byte* page) const;
  void forget_copy(std::size_t page) noexcept;
};

/// A page, or none. Copies share it; the last one gives it back. What several have must not be written to.
class PageRef {
public:
  PageRef() = default;
  PageRef(const PageRef& other) noexcept;
  PageRef(PageRef&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), slab_(std::exchange(other.slab_, nullptr)) {}
  PageRef& operator=(PageRef other) noexcept {
    std::swap(data_, other.data_);
    std::swap(slab_, other.slab_);
    return *this;
  }
  ~PageRef();

  std::byte* data() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }
  bool shared() const;
  std::size_t bytes() const;
  PagePool& pool() const { return *slab_->pool; }
  /// Where else its bytes are; null: nowhere.
  std::shared_ptr<PageCopy> copy() const;
  void set_copy(std::shared_ptr<PageCopy> copy) const;
  /// The page will be written to: its copy is no longer one.
  void forget_copy() const noexcept;
  /// The page of a copy; none when it has left memory.
  static PageRef of(const PageCopy& copy) noexcept;

private:
  friend class PagePool;
  PageRef(std::byte* data, PageSlab* slab) : data_(data), slab_(slab) {}

  std::byte* data_ = nullptr;
  PageSlab* slab_ = nullptr;
};

/// A page's bytes on the disk (kv_swap.hpp). The page finds it until it is written to, and it finds the page while that
/// is in memory, so whoever shares the one shares the other.
struct PageCopy {
  std::shared_ptr<const void> place;  ///< on the disk; null: could not be written, and the page stays
  Bytes offset = 0;
  std::byte* data = nullptr;  ///< the page; null: not in memory
  PageSlab* slab = nullptr;
  PageRef stays{};
};

/// A page that somebody has.
struct HeldPage {
  const std::byte* data;
  std::size_t bytes;
  bool shared;
};

class PagePool {
public:
  PagePool(Ledger& ledger, std::size_t page_bytes);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  /// A page of page_bytes(), 64-byte aligned: zeros, or what a page of this pool held before. Throws OutOfBudget.
  PageRef allocate();
  std::size_t page_bytes() const { return page_bytes_; }
  /// Of pages that are in use.
  Bytes used_bytes() const { return used_pages_ * page_bytes_; }
  /// Of pages that are free, in slabs that others keep.
  Bytes free_bytes() const { return (slabs_.size() * slab_pages_ - used_pages_) * page_bytes_; }
  /// What the pool grows by.
  std::size_t slab_bytes() const { return slab_pages_ * page_bytes_; }

private:
  friend class PageRef;
  /// Of each slab: its free pages, and itself.
  using Key = std::pair<std::size_t, PageSlab*>;
  using Slabs = std::map<Key, std::unique_ptr<PageSlab>>;
  void free(PageSlab& slab, std::size_t page) noexcept;
  void move_to(Slabs::iterator slab, std::size_t free_pages) noexcept;

  Ledger& ledger_;
  std::size_t page_bytes_, slab_pages_, used_pages_ = 0;
  Slabs slabs_;
};

}  // namespace snug
