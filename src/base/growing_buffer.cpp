#include "base/growing_buffer.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/buffer.hpp"

namespace snug {

namespace {

constexpr Bytes kPage = 4096;

}  // namespace

GrowingBuffer::GrowingBuffer(Ledger& ledger, Tag tag, Bytes most, PageStock* stock)
    : reservation_(ledger.reserve(tag, 0)), mapped_size_(round_up(most, kHugePage) + kHugePage), stock_(stock) {
  void* mapped = mmap(nullptr, mapped_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) fail<IoError>("no room for {} of addresses: {}", format_bytes(most), std::strerror(errno));
  mapped_ = static_cast<std::byte*>(mapped);
  data_ = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<std::uintptr_t>(mapped_), kHugePage));
#ifdef MADV_NOHUGEPAGE
  // A huge page at the end would be more than is charged.
  madvise(mapped_, mapped_size_, MADV_NOHUGEPAGE);
#endif
}

GrowingBuffer::GrowingBuffer(GrowingBuffer&& other) noexcept {
  *this = std::move(other);
}

GrowingBuffer& GrowingBuffer::operator=(GrowingBuffer&& other) noexcept {
  std::swap(reservation_, other.reservation_);
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
  std::swap(mapped_size_, other.mapped_size_);
  std::swap(size_, other.size_);
  std::swap(stock_, other.stock_);
  return *this;
}

GrowingBuffer::~GrowingBuffer() {
  if (!mapped_) return;
  resize(0);  // whole pages go to the stock
  munmap(mapped_, mapped_size_);
}

Bytes GrowingBuffer::charged(Bytes bytes, const PageStock* stock) {
  return round_up(bytes, stock ? kHugePage : kPage);
}

void GrowingBuffer::resize(Bytes bytes) {
  const Bytes before = charged(), after = charged(bytes, stock_);
  const auto whole = [this](Bytes from, Bytes to, auto each) {
    for (Bytes at = round_up(from, kHugePage); at + kHugePage <= to; at += kHugePage) each(data_ + at);
  };
  if (after > before) {
    reservation_.resize(after);
    if (mprotect(data_ + before, after - before, PROT_READ | PROT_WRITE) != 0) {
      const int error = errno;
      reservation_.resize(before);
      fail<IoError>("cannot allocate {}: {}", format_bytes(after - before), std::strerror(error));
    }
    whole(before, after, [this](std::byte* page) {
      if (!stock_ || !stock_->take(page)) madvise(page, kHugePage, MADV_HUGEPAGE);
    });
    populate_working_memory(reservation_.tag(), data_ + before, after - before);
  } else if (after < before) {
    whole(after, before, [this](std::byte* page) {
      if (stock_) stock_->put(page);
    });
    // What the stock did not take goes back to the system.
    madvise(data_ + after, before - after, MADV_DONTNEED);
    mprotect(data_ + after, before - after, PROT_NONE);
    reservation_.resize(after);
  }
  size_ = bytes;
}

}  // namespace snug
