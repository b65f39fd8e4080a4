// Pages of the store that go to the disk (kv_spill.hpp), and come from there for attention.

#include <algorithm>
#include <cstring>

#include "kv/kv_store.hpp"

namespace snug {

std::size_t KvStore::extent_pages(std::size_t layer) const {
  return pools_.spill()->extent_pages(pools_.spill_page_bytes(layer));
}

std::size_t KvStore::spilled_pages(std::size_t layer) const {
  return spilled_[layer].empty() ? 0 : spilled_[layer].size() * extent_pages(layer);
}

bool KvStore::may_spill(std::size_t layer) const {
  if (shapes()[layer].kv_heads == 0 || shapes()[layer].window > 0) return false;
  const std::size_t begin = spilled_pages(layer), end = begin + extent_pages(layer);
  if (!format().coded()) return end + kRecentPages <= stored_ / kPageTokens;
  if (recalls(layer)) return end <= std::min(coded_count_[layer], only_coded(format(), stored_));
  if (format().cold) return end <= cold_count_[layer];
  // Pages that are there coded and no longer in bf16.
  return end <= coded_count_[layer] && end < pages_[layer].size() && !pages_[layer][end - 1];
}

void KvStore::spill_extent(std::size_t layer) {
  auto& list = spills_raw(layer) ? pages_[layer] : format().cold ? cold_[layer] : coded_[layer];
  const std::size_t begin = spilled_pages(layer), count = extent_pages(layer);
  const std::size_t bytes = pools_.spill_page_bytes(layer);
  spilled_[layer].push_back(pools_.spill()->write(count, bytes, [&](std::size_t page, std::byte* to) {
    const std::byte* from = list[begin + page].data();
    if (!from) return;  // the first one is not coded
    if (recalls(layer))
      interleave_tiles(shapes()[layer], from, to, bytes, false);
    else
      std::memcpy(to, from, bytes);
  }));
  const std::size_t stay = recalls(layer) ? kFirstPages : 0;  // seen as they are, and by every query
  for (std::size_t page = std::max(begin, stay); page < begin + count; ++page) list[page] = {};
}

void KvStore::make_room(Bytes bytes) {
  for (std::size_t layer = 0; layer < shapes().size(); ++layer)
    while (recalls(layer) && may_spill(layer)) spill_extent(layer);
  if (pools_.spill()->limit() == 0) return;
  while (pools_.used_bytes() + bytes > pools_.spill()->limit() && spill_next()) {
  }
}

bool KvStore::spill_next() {
  std::size_t least = shapes().size();
  for (std::size_t layer = 0; layer < shapes().size(); ++layer)
    if (may_spill(layer) && (least == shapes().size() || spilled_pages(layer) < spilled_pages(least))) least = layer;
  if (least == shapes().size()) return false;
  spill_extent(least);
  return true;
}

KvStore::Loan KvStore::borrow(std::size_t layer, std::size_t part) {
  const std::size_t pages = extent_pages(layer), bytes = pools_.spill_page_bytes(layer);
  const std::size_t first = part * kPartPages / pages,
                    end = std::min(spilled_[layer].size(), first + pools_.spill()->window());
  give_back();
  lent_.resize(first * pages, nullptr);
  for (std::size_t extent = first; extent < end; ++extent) {
    leases_.push_back(pools_.spill()->read(*spilled_[layer][extent]));
    for (std::size_t page = 0; page < pages; ++page) lent_.push_back(leases_.back().data + page * bytes);
  }
  return {*this, end * pages / kPartPages};
}

void KvStore::give_back() noexcept {
  lent_.clear();
  leases_.clear();
}

KvStore::RawTile KvStore::raw_tile(std::size_t layer, std::size_t head, std::size_t tile) const {
  const KvShape& shape = shapes()[layer];
  const std::size_t page = tile / kPageTiles, in_page = tile % kPageTiles;
  const std::size_t key_values = kv_tile_values(shape.k_dim), value_values = kv_tile_values(shape.v_dim);
  const std::byte *own = pages_[layer][page].data(),
                  *lent = spills_raw(layer) && page < lent_.size() ? lent_[page] : nullptr;
  const std::byte* there = own ? own : lent;
  const auto* head_tiles = there ? reinterpret_cast<const bf16_t*>(there) + shape.offset(KvSide::keys, head) : nullptr;
  if (own || (lent && !recalls(layer)))
    return {head_tiles + in_page * key_values, head_tiles + kPageTiles * key_values + in_page * value_values};
  if (!recalls(layer)) return {};
  // A tile's values lie behind its keys.
  const bf16_t* keys = lent ? head_tiles + in_page * (key_values + value_values) : recall_->find(layer, head, tile);
  return keys ? RawTile{keys, keys + key_values} : RawTile{};
}

const std::byte* KvStore::coded_page(std::size_t layer, std::size_t page) const {
  const auto& list = page < cold_count_[layer] ? cold_[layer] : coded_[layer];
  if (page < list.size())
    if (const std::byte* there = list[page].data()) return there;
  return page >= kFirstPages && page < lent_.size() && !spills_raw(layer) ? lent_[page] : nullptr;
}

std::size_t KvStore::parts_on_disk(std::size_t layer, std::size_t rows) const {
  return looks_back(layer, rows) ? 0 : spilled_pages(layer) / kPartPages;
}

void KvStore::begin_recall(std::size_t layer, std::size_t rows) {
  if (looks_back(layer, rows)) recall_->begin(layer, pages_[layer].size() * kPageTiles);
}

void KvStore::note_weights(std::size_t layer, std::size_t head, std::size_t part,
                           std::span<const AttentionState> states, const float* tile_sums) {
  recall_->note(layer, head, part, states, tile_sums);
}

std::vector<std::pair<std::size_t, std::size_t>> KvStore::choose_recall(std::size_t layer, std::size_t rows) {
  if (!looks_back(layer, rows)) return {};
  const std::size_t pages = extent_pages(layer), tile_bytes = KvRecall::tile_bytes(shapes()[layer]);
  const auto where = [&](std::size_t head, std::size_t tile) {
    const std::size_t page = tile / kPageTiles;
    const FileRange extent = spilled_[layer][page / pages]->range();
    return FileRange{extent.file,
                     extent.offset + page % pages * pools_.spill_page_bytes(layer) +
                         (head * kPageTiles + tile % kPageTiles) * tile_bytes,
                     tile_bytes};
  };
  return recall_->choose(layer, kFirstPages * kPageTiles, spilled_pages(layer) * kPageTiles, where);
}

}  // namespace snug
