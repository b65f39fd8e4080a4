#include "kv/kv_spill.hpp"

#include <algorithm>

namespace snug {

namespace {

constexpr Bytes kStagingBytes = 16 * kMiB, kRecallStagingBytes = 4 * kMiB;
constexpr std::size_t kLeastSlots = 32, kMostSlots = 256;

std::size_t slots_for(const KvSpillOptions& options, std::size_t extent) {
  const Bytes staging = options.recall > 0 ? kRecallStagingBytes : kStagingBytes;
  return std::clamp<std::size_t>(staging / extent, kLeastSlots, kMostSlots);
}

}  // namespace

std::size_t KvSpill::extent_pages(const KvSpillOptions& options, std::size_t page_bytes) {
  const std::size_t part = kPartPages * page_bytes;
  return (options.extent_bytes + part - 1) / part * kPartPages;
}

std::size_t KvSpill::extent_bytes(const KvSpillOptions& options, std::size_t page_bytes) {
  return round_up(extent_pages(options, page_bytes) * page_bytes, kDirectBlock);
}

Bytes KvSpill::memory_bytes(const KvSpillOptions& options, std::size_t most_extent) {
  return most_extent + slots_for(options, most_extent) * FileRange::blocks_bytes(most_extent);
}

KvSpill::KvSpill(Ledger& ledger, const KvSpillOptions& options, std::size_t most_extent)
    : options_(options),
      slots_(slots_for(options, most_extent)),
      file_(std::make_shared<SpillFile>()),
      outgoing_(ledger, Tag::kv, most_extent),
      reader_(ledger, slots_, most_extent, Tag::kv) {}

KvSpill::~KvSpill() = default;

Bytes KvSpill::disk_bytes() const {
  return file_->used_bytes();
}

std::size_t KvSpill::window() const {
  return slots_ / 4;
}

std::shared_ptr<const KvSpill::Extent> KvSpill::write(std::size_t pages, std::size_t page_bytes,
                                                      const std::function<void(std::size_t, std::byte*)>& fill) {
  const std::size_t size = round_up(pages * page_bytes, kDirectBlock);
  for (std::size_t i = 0; i < pages; ++i) fill(i, outgoing_.data() + i * page_bytes);
  auto extent = std::make_shared<Extent>(file_, size);
  file_->write(extent->range().offset, {outgoing_.data(), size});
  return extent;
}

ReadAhead::Lease KvSpill::read(const Extent& extent) {
  return reader_.get(extent.range(), extent.range().offset, extent.size());
}

}  // namespace snug
