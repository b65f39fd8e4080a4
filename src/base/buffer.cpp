#include "base/buffer.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace snug {

Buffer::Buffer(Ledger& ledger, Tag tag, Bytes bytes) : reservation_(ledger.reserve(tag, bytes)), size_(bytes) {
  mapped_ = reservation_.bytes();
  if (mapped_ == 0) return;
  void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail<IoError>("cannot allocate {}: {}", format_bytes(bytes), std::strerror(errno));
  if (mapped_ >= 4 * kMiB) madvise(memory, mapped_, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(memory);
}

Buffer::Buffer(Buffer&& other) noexcept
    : reservation_(std::move(other.reservation_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(reservation_, other.reservation_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Buffer::~Buffer() {
  if (data_) munmap(data_, mapped_);
}

}  // namespace snug
