#include "base/buffer.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace snug {

namespace {

constexpr Bytes kHugePage = 2 * kMiB;

/// Memory from the kernel; what a huge page fits into starts at one, so that it can be one.
void* map_memory(Bytes bytes) {
  const Bytes room = bytes >= kHugePage ? kHugePage : 0;
  void* mapped = mmap(nullptr, bytes + room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED || room == 0) return mapped;
  auto* begin = static_cast<std::byte*>(mapped);
  auto* memory = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<std::uintptr_t>(begin), kHugePage));
  if (memory != begin) munmap(begin, static_cast<Bytes>(memory - begin));
  if (const Bytes behind = room - static_cast<Bytes>(memory - begin)) munmap(memory + bytes, behind);
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

}  // namespace

void populate_working_memory([[maybe_unused]] Tag tag, [[maybe_unused]] std::byte* memory,
                             [[maybe_unused]] Bytes bytes) {
#ifdef MADV_POPULATE_WRITE
  if (tag == Tag::activations || tag == Tag::scratch) madvise(memory, bytes, MADV_POPULATE_WRITE);
#endif
}

Buffer::Buffer(Ledger& ledger, Tag tag, Bytes bytes) : reservation_(ledger.reserve(tag, bytes)), size_(bytes) {
  mapped_ = reservation_.bytes();
  if (mapped_ == 0) return;
  void* memory = map_memory(mapped_);
  if (memory == MAP_FAILED) fail<IoError>("cannot allocate {}: {}", format_bytes(bytes), std::strerror(errno));
  data_ = static_cast<std::byte*>(memory);
  populate_working_memory(tag, data_, mapped_);
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
