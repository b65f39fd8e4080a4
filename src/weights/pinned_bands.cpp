#include "weights/pinned_bands.hpp"

#include <algorithm>

#include "weights/bulk_read.hpp"

namespace snug {

namespace {

constexpr std::size_t kAlign = 64;
/// Less than this of a tensor is not left to be read for each pass: the disk would be slow at it.
constexpr std::size_t kLeastStreamed = 128 << 10;

}  // namespace

void PinnedBands::set_tensors(std::vector<const StoredTensor*> tensors) {
  tensors_ = std::move(tensors);
  lay_out();
}

std::size_t PinnedBands::pinned_groups(const StoredTensor& tensor, std::size_t bands) const {
  const std::size_t all = tensor.all_groups();
  if (bands == 0 || bands == kBands) return bands == 0 ? 0 : all;
  const std::size_t groups = all * bands / kBands / step_ * step_;
  return (all - groups) * tensor.file_group_bytes() < kLeastStreamed ? all : groups;
}

Bytes PinnedBands::bytes(std::size_t bands) const {
  return GrowingBuffer::charged(end_of(bands), stock_);
}

void PinnedBands::lay_out() {
  bands_.clear();
  Bytes at = 0;
  for (std::size_t number = 0; number < kBands; ++number) {
    Band& band = bands_.emplace_back();
    for (const StoredTensor* t : tensors_) {
      band.offset.push_back(at);
      if (t) at += round_up((pinned_groups(*t, number + 1) - pinned_groups(*t, number)) * t->group_bytes(), kAlign);
    }
    band.end = at = round_up(at, kDirectBlock);
  }
}

void PinnedBands::resize(std::size_t bands, std::span<std::byte> scratch) {
  if (bands == count_) return;
  if (count_ == 0) memory_ = GrowingBuffer(ledger_, Tag::weights, end_of(kBands), stock_);
  const std::size_t before = count_;
  memory_.resize(end_of(bands));
  count_ = bands;
  if (bands < before) return;
  try {
    fill(before, scratch);
  } catch (...) {
    count_ = before;
    memory_.resize(end_of(before));
    throw;
  }
}

void PinnedBands::fill(std::size_t first, std::span<std::byte> scratch) {
  struct Piece {
    std::size_t tensor, begin, end;  // groups over all experts
  };
  std::vector<Piece> pieces;
  std::vector<FileRange> ranges;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i]) continue;
    const StoredTensor& t = *tensors_[i];
    const std::size_t end = pinned_groups(t, count_),
                      most = std::max<std::size_t>(1, kBulkBytes / t.file_group_bytes());
    for (std::size_t g = pinned_groups(t, first); g < end;) {
      // Groups of one expert are consecutive in the file.
      const std::size_t last = std::min({end, g + most, (g / t.weight.groups() + 1) * t.weight.groups()});
      pieces.push_back({i, g, last});
      ranges.push_back(t.range_of(g, last));
      g = last;
    }
  }
  read_in_bulk(ledger_, pool_, scratch, ranges, [&](std::size_t index, std::span<const std::byte> stored) {
    const Piece& piece = pieces[index];
    const StoredTensor& t = *tensors_[piece.tensor];
    for (std::size_t g = piece.begin; g < piece.end;) {
      const std::size_t band = band_of(t, g), end = std::min(piece.end, pinned_groups(t, band + 1));
      const std::size_t size = t.range_of(g, end).size;
      t.pack(stored.first(size), place_of(piece.tensor, band, g));
      stored = stored.subspan(size);
      g = end;
    }
  });
}

Bytes PinnedBands::file_bytes(std::size_t bands) const {
  Bytes bytes = 0;
  for (const StoredTensor* t : tensors_)
    if (t && bands > count_) bytes += (pinned_groups(*t, bands) - pinned_groups(*t, count_)) * t->file_group_bytes();
  return bytes;
}

std::size_t PinnedBands::band_of(const StoredTensor& tensor, std::size_t group) const {
  std::size_t band = group * kBands / tensor.all_groups();
  while (pinned_groups(tensor, band) > group) --band;
  while (pinned_groups(tensor, band + 1) <= group) ++band;
  return band;
}

std::byte* PinnedBands::place_of(std::size_t tensor, std::size_t band, std::size_t group) const {
  const StoredTensor& t = *tensors_[tensor];
  return memory_.data() + bands_[band].offset[tensor] + (group - pinned_groups(t, band)) * t.group_bytes();
}

const std::byte* PinnedBands::find(std::size_t tensor, std::size_t begin, std::size_t end) const {
  if (!tensors_[tensor] || count_ == 0) return nullptr;
  const std::size_t band = band_of(*tensors_[tensor], begin);
  if (band >= count_ || end > pinned_groups(*tensors_[tensor], band + 1)) return nullptr;
  return place_of(tensor, band, begin);
}

}  // namespace snug
