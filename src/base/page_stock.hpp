#pragma once
/// Memory on its way from one GrowingBuffer to another: huge pages change their address (mremap) instead of being given
/// back and cleared anew by the system, which takes as long as a fast disk takes to fill them.

#include <cstddef>
#include <vector>

#include "base/units.hpp"

namespace snug {

/// Bytes of a huge page, which is the unit here.
inline constexpr Bytes kHugePage = 2 * kMiB;

/// What is in it is in no ledger: it is open only from when somebody gives memory up to when another has taken it. Not
/// thread-safe.
class PageStock {
public:
  /// Holds at most so much.
  explicit PageStock(Bytes most);
  ~PageStock();
  PageStock(const PageStock&) = delete;
  PageStock& operator=(const PageStock&) = delete;

  /// From now on put() takes pages.
  void open() { open_ = begin_ != nullptr; }
  /// What has not been taken goes back to the system.
  void close();
  /// Takes the page at `page`, whose place stays mapped and becomes empty. Returns false, and does nothing, where the
  /// stock is closed or full, or the kernel cannot do it.
  bool put(std::byte* page) noexcept;
  /// Puts a page, with whatever is in it, in place of what is mapped at `place`. Returns false when there is none.
  bool take(std::byte* place) noexcept;
  std::size_t pages() const { return full_.size(); }

private:
  std::byte* begin_ = nullptr;
  std::size_t size_ = 0;  ///< of its place in the address space
  bool open_ = false;
  std::vector<std::byte*> full_, empty_;  ///< places
};

}  // namespace snug
