#pragma once
/// Page-aligned anonymous memory, charged to a ledger for as long as it lives.

#include <cstddef>
#include <span>

#include "base/ledger.hpp"

namespace snug {

/// Zero-initialised, aligned to at least 4096 bytes; move-only. Large buffers ask for transparent huge pages.
class Buffer {
public:
  Buffer() = default;
  /// Throws OutOfBudget, or IoError when the system has no memory.
  Buffer(Ledger& ledger, Tag tag, Bytes bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

private:
  Reservation reservation_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0, mapped_ = 0;
};

}  // namespace snug
