#pragma once
/// Page-aligned anonymous memory, charged to a ledger for as long as it lives.

#include <cstddef>
#include <span>

#include "base/ledger.hpp"

namespace snug {

/// Working memory (activations, scratch) is there as soon as it is charged: it would otherwise come bit by bit, and
/// perhaps not when it is needed. Does nothing for other tags: weights are written at once, KV slabs fill as tokens
/// come.
void populate_working_memory(Tag tag, std::byte* memory, Bytes bytes);

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
