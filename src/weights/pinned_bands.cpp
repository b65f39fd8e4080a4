#include "weights/pinned_bands.hpp"

#include <algorithm>

namespace snug {

namespace {

constexpr std::size_t kAlign = 64;
/// Less than this of a tensor is not left to be read for each pass: the disk would be slow at it.
constexpr std::size_t kLeastStreamed = 128 << 10;

}  // namespace

void PinnedBands::set_tensors(std::vector<const StoredTensor*> tensors) {
  tensors_ = std::move(tensors);
}

std::size_t PinnedBands::pinned_groups(const StoredTensor& tensor, std::size_t bands) const {
  const std::size_t all = tensor.all_groups();
  if (bands == 0 || bands == kBands) return bands == 0 ? 0 : all;
  const std::size_t groups = all * bands / kBands / step_ * step_;
  return (all - groups) * tensor.file_group_bytes() < kLeastStreamed ? all : groups;
}

Bytes PinnedBands::band_bytes(std::size_t band) const {
  Bytes size = 0;
  for (const StoredTensor* t : tensors_)
    if (t) size += round_up((pinned_groups(*t, band + 1) - pinned_groups(*t, band)) * t->group_bytes(), kAlign);
  return round_up(size, kDirectBlock);
}

void PinnedBands::pin(std::size_t number) {
  Band band{Buffer(ledger_, Tag::weights, band_bytes(number)), {}};
  Bytes size = 0;
  std::size_t raw = 0;
  for (const StoredTensor* t : tensors_) {
    band.offset.push_back(size);
    if (!t) continue;
    size += round_up((pinned_groups(*t, number + 1) - pinned_groups(*t, number)) * t->group_bytes(), kAlign);
    raw = std::max(raw, step_ * t->file_group_bytes());
  }
  std::vector<std::vector<std::byte>> scratch(pool_.size());
  pool_.parallel_for(tensors_.size(), 1, [&](std::size_t from, std::size_t to, unsigned worker) {
    scratch[worker].resize(raw);
    for (std::size_t i = from; i < to; ++i) {
      if (!tensors_[i]) continue;
      const StoredTensor& t = *tensors_[i];
      const std::size_t end = pinned_groups(t, number + 1);
      std::byte* out = band.memory.data() + band.offset[i];
      for (std::size_t g = pinned_groups(t, number); g < end; g += step_, out += step_ * t.group_bytes())
        t.read_groups(g, std::min(end, g + step_), scratch[worker].data(), out);
    }
  });
  bands_.push_back(std::move(band));
}

void PinnedBands::resize(std::size_t bands) {
  while (bands_.size() > bands) bands_.pop_back();
  while (bands_.size() < bands) pin(bands_.size());
}

Bytes PinnedBands::bytes() const {
  Bytes total = 0;
  for (const Band& band : bands_) total += band.memory.size();
  return total;
}

const std::byte* PinnedBands::find(std::size_t tensor, std::size_t begin, std::size_t end) const {
  if (!tensors_[tensor] || bands_.empty()) return nullptr;
  const StoredTensor& t = *tensors_[tensor];
  std::size_t band = begin * kBands / t.all_groups();
  while (pinned_groups(t, band) > begin) --band;
  while (pinned_groups(t, band + 1) <= begin) ++band;
  if (band >= bands_.size() || end > pinned_groups(t, band + 1)) return nullptr;
  return bands_[band].memory.data() + bands_[band].offset[tensor] + (begin - pinned_groups(t, band)) * t.group_bytes();
}

}  // namespace snug
