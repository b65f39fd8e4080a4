#pragma once
/// Memory that grows and shrinks at its end and stays where it is, charged to a ledger page by page.

#include <cstddef>

#include "base/ledger.hpp"
#include "base/page_stock.hpp"

namespace snug {

/// Aligned to kHugePage, with huge pages where whole ones fit. What comes into it holds anything.
class GrowingBuffer {
public:
  GrowingBuffer() = default;
  /// Empty; a place for `most` bytes in the address space. `stock`, which may be null and outlives it, gets what it
  /// loses and has what it gains. Throws IoError.
  GrowingBuffer(Ledger& ledger, Tag tag, Bytes most, PageStock* stock = nullptr);
  GrowingBuffer(GrowingBuffer&& other) noexcept;
  GrowingBuffer& operator=(GrowingBuffer&& other) noexcept;
  ~GrowingBuffer();

  /// REQUIRES: at most as much as there is a place for. To grow may throw OutOfBudget or IoError: nothing has changed
  /// then.
  void resize(Bytes bytes);
  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  Bytes charged() const { return reservation_.bytes(); }
  /// To the ledger, for `bytes`: whole pages, and whole huge ones with a stock, as those are what it hands over.
  static Bytes charged(Bytes bytes, const PageStock* stock);

private:
  Reservation reservation_;
  std::byte *mapped_ = nullptr, *data_ = nullptr;
  std::size_t mapped_size_ = 0, size_ = 0;
  PageStock* stock_ = nullptr;
};

}  // namespace snug
