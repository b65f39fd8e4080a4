// What saved sessions need of the store: which pages are there, and how to get them back.

#include <algorithm>
#include <cstring>

#include "kv/kv_store.hpp"

namespace snug {

bool KvStore::on_disk() const {
  for (std::size_t layer = 0; layer < pages_.size(); ++layer)
    if (spilled_pages(layer) > 0) return true;
  return swapped();
}

KvHeld KvStore::held(std::size_t layer) const {
  const auto first = [](const std::vector<PageRef>& list, std::size_t begin, std::size_t end) {
    while (begin < end && !list[begin]) ++begin;
    return begin;
  };
  KvHeld held;
  if (shapes()[layer].kv_heads == 0) return held;
  held.raw_end = std::min(pages_[layer].size(), pages_of(stored_));
  const bool spilled = spilled_pages(layer) > 0;
  if (format().coded())
    while (held.first_end < std::min(kFirstPages, held.raw_end) && pages_[layer][held.first_end]) ++held.first_end;
  held.raw_begin = spilled && spills_raw(layer) ? held.first_end : first(pages_[layer], held.first_end, held.raw_end);
  held.coded_end = std::min(coded_count_[layer], stored_ / kPageTokens);
  held.coded_begin = std::min(kFirstPages, held.coded_end);
  held.cold_end = cold_count_[layer];
  held.cold_begin = std::min(kFirstPages, held.cold_end);
  if (!spilled || spills_raw(layer) || format().cold)
    held.coded_begin = first(coded_[layer], held.coded_begin, held.coded_end);
  if (!spilled) held.cold_begin = first(cold_[layer], held.cold_begin, held.cold_end);
  return held;
}

void KvStore::each_page(std::size_t layer, const std::function<void(std::span<std::byte>)>& f) const {
  const KvHeld h = held(layer);
  const auto pages = [&](const std::vector<PageRef>& list, std::size_t begin, std::size_t end, std::size_t bytes,
                         bool spilled) {
    std::vector<std::byte> page(bytes);
    for (std::size_t i = begin; i < end; ++i) {
      if (!spilled || i >= spilled_pages(layer)) {
        f({list[i].data(), bytes});
        continue;
      }
      const ReadAhead::Lease lease = pools_.spill()->read(*spilled_[layer][i / extent_pages(layer)]);
      const std::byte* there = lease.data + i % extent_pages(layer) * bytes;
      if (recalls(layer))
        interleave_tiles(shapes()[layer], there, page.data(), bytes, true);
      else
        std::memcpy(page.data(), there, bytes);
      f(page);
    }
  };
  const std::size_t raw_bytes = format().raw_page_bytes(shapes()[layer]);
  pages(pages_[layer], 0, h.first_end, raw_bytes, false);
  pages(pages_[layer], h.raw_begin, h.raw_end, raw_bytes, spills_raw(layer));
  if (h.coded_pages() > 0)
    pages(coded_[layer], h.coded_begin, h.coded_end, format().page_bytes(layer), !spills_raw(layer) && !format().cold);
  if (h.cold_pages() > 0) pages(cold_[layer], h.cold_begin, h.cold_end, format().cold_bytes(layer), true);
}

bool KvStore::can_hold(std::size_t layer, std::size_t tokens, const KvHeld& h) const {
  const KvShape& shape = pools_.shapes()[layer];
  if (shape.kv_heads == 0) return h.raw_end == 0 && h.coded_end == 0 && h.cold_end == 0;
  const std::size_t needed = shape.window && tokens > shape.window ? (tokens - shape.window) / kPageTokens : 0;
  if (h.first_end > h.raw_begin || h.raw_begin > h.raw_end || h.coded_begin > h.coded_end) return false;
  if (h.raw_end != pages_of(tokens) || h.raw_begin > std::max({needed, h.first_end, only_coded(format(), tokens)}))
    return false;
  if (!format().coded()) return h.first_end == 0 && h.coded_end == 0 && h.cold_end == 0;
  if (recalls(layer) && h.raw_begin > h.first_end) return false;  // saved by who did not keep them
  if (h.first_end > kFirstPages || h.coded_begin < std::min(kFirstPages, h.coded_end)) return false;
  if (needed < kFirstPages && h.first_end < std::min(kFirstPages, h.raw_end)) return false;
  if (h.cold_begin < std::min(kFirstPages, h.cold_end) || h.cold_begin > std::max(needed, kFirstPages) ||
      h.cold_begin > h.cold_end || h.cold_end > h.coded_end)
    return false;
  if (h.cold_end < format().cold_between_calls(tokens) || h.cold_end > format().cold_pages(tokens)) return false;
  return h.coded_begin <= std::max({needed, kFirstPages, h.cold_end}) &&
         h.coded_end >= format().coded_between_calls(tokens) && h.coded_end <= tokens / kPageTokens;
}

void KvStore::hold(std::size_t tokens, std::span<const KvHeld> layers) {
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    const KvHeld& h = layers[layer];
    pages_[layer].resize(h.raw_end);
    for (std::size_t page = 0; page < h.raw_end; ++page)
      if (page < h.first_end || page >= h.raw_begin) pages_[layer][page] = pools_.pool(layer).allocate();
    coded_[layer].resize(h.coded_end);
    for (std::size_t page = h.coded_begin; page < h.coded_end; ++page)
      coded_[layer][page] = pools_.coded_pool(layer).allocate();
    coded_count_[layer] = h.coded_end;
    cold_[layer].resize(h.cold_end);
    for (std::size_t page = h.cold_begin; page < h.cold_end; ++page)
      cold_[layer][page] = pools_.cold_pool(layer).allocate();
    cold_count_[layer] = h.cold_end;
    const std::size_t behind = pools_.shapes()[layer].window + slack_,
                      dead = tokens > behind ? (tokens - behind) / kPageTokens : 0;
    if (pools_.shapes()[layer].window &&
        (h.raw_begin > std::max({dead, h.first_end, only_coded(format(), tokens)}) ||
         h.coded_begin > std::max({dead, kFirstPages, h.cold_end}) || h.cold_begin > std::max(dead, kFirstPages)))
      loaded_ = tokens;
  }
  stored_ = tokens;
}

}  // namespace snug
