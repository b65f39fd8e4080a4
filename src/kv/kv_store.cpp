#include "kv/kv_store.hpp"

#include <algorithm>
#include <cstring>

namespace snug {

KvStore::KvStore(KvPools& pools, std::size_t slack)
    : pools_(pools),
      slack_(slack),
      pages_(pools.shapes().size()),
      coded_(pools.shapes().size()),
      cold_(pools.shapes().size()),
      coded_count_(pools.shapes().size()),
      cold_count_(pools.shapes().size()),
      spilled_(pools.shapes().size()),
      chains_(pools.chains().size()) {}

std::unique_ptr<KvStore> KvStore::fork() const {
  std::unique_ptr<KvStore> copy(new KvStore(*this));
  for (Chain& chain : copy->chains_) chain = {};  // to be written to by either
  if (recall_) copy->recall_ = pools_.new_recall();
  return copy;
}

void KvStore::reserve(std::size_t tokens) {
  if (pools_.spill()) make_room(pools_.growth_bytes(stored_, tokens));
  const bool under_pressure = pools_.spill() && pools_.spill()->limit() == KvSpillOptions::kUnderPressure;
  while (true) {
    try {
      return reserve_pages(tokens);
    } catch (const OutOfBudget&) {
      // Room comes when a slab has no page left: it may take several extents.
      if (!under_pressure || !spill_next()) throw;
    }
  }
}

void KvStore::reserve_pages(std::size_t tokens) {
  const std::size_t wanted = pages_of(tokens), from = stored_ / kPageTokens;
  const std::size_t coded = format().coded_between_calls(tokens), cold = format().cold_pages(stored_);
  for (std::size_t layer = 0; !recall_ && layer < pages_.size(); ++layer)
    if (recalls(layer)) recall_ = pools_.new_recall();
  struct Fresh {
    std::vector<PageRef>* list;
    std::size_t index;
    PageRef page;
  };
  std::vector<Fresh> fresh;
  const auto own = [&fresh](std::vector<PageRef>& list, std::size_t index, PagePool& pool) {
    if (index >= list.size() || !list[index] || list[index].shared())
      fresh.push_back({&list, index, pool.allocate()});
    else
      list[index].forget_copy();
  };
  const auto own_page = [&](std::size_t layer, std::size_t page) {
    if (pools_.shapes()[layer].kv_heads > 0) own(pages_[layer], page, pools_.pool(layer));
  };
  // Pages that will be coded go by age: those of all layers share slabs, which go with them. Else a layer's follow each
  // other, as attention reads them.
  const std::size_t layers = pages_.size();
  if (format().coded()) {
    for (std::size_t page = from; page < wanted; ++page)
      for (std::size_t layer = 0; layer < layers; ++layer) own_page(layer, page);
  } else {
    for (std::size_t layer = 0; layer < layers; ++layer)
      for (std::size_t page = from; page < wanted; ++page) own_page(layer, page);
  }
  for (std::size_t layer = 0; layer < layers; ++layer) {
    if (pools_.shapes()[layer].kv_heads == 0) continue;
    auto &list = pages_[layer], &coded_list = coded_[layer];
    // What is behind a window already is not coded.
    for (std::size_t page = std::max(coded_count_[layer], kFirstPages); page < coded; ++page)
      if (page >= from || list[page]) own(coded_list, page, pools_.coded_pool(layer));
    for (std::size_t page = std::max(cold_count_[layer], kFirstPages); page < cold; ++page)
      if (coded_list[page]) own(cold_[layer], page, pools_.cold_pool(layer));
    list.reserve(wanted), coded_list.reserve(coded);
    if (chains_.empty() || pools_.chains()[layer] != layer) continue;
    Chain& chain = chains_[layer];
    chain.layer = kNone;
    const std::size_t seen = tokens > 0 ? KvFormat::coded_pages(tokens - 1) : 0;
    for (std::size_t page = kFirstPages; page < seen; ++page)
      if (page >= coded_list.size() || coded_list[page]) own(chain.pages, page, pools_.chain_pool(layer));
    chain.pages.reserve(seen);
  }
  // Nothing fails from here on.
  for (Fresh& f : fresh) {
    if (f.index >= f.list->size()) f.list->resize(f.index + 1);
    PageRef& page = (*f.list)[f.index];
    if (page) std::memcpy(f.page.data(), page.data(), page.bytes());
    page = std::move(f.page);
  }
}

/// Of all pages keeps the first `keep`, and codes only where they are filled in.
void KvStore::drop_pages(std::size_t keep) noexcept {
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    coded_count_[layer] = std::min(coded_count_[layer], keep);
    cold_count_[layer] = std::min(cold_count_[layer], keep);
    if (cold_[layer].size() > cold_count_[layer]) cold_[layer].resize(cold_count_[layer]);
    auto &list = pages_[layer], &coded = coded_[layer];
    if (recall_ && spilled_pages(layer) > keep) recall_->forget(keep);
    while (spilled_pages(layer) > keep) spilled_[layer].pop_back();
    if (list.size() > keep) list.resize(keep);
    if (coded.size() > coded_count_[layer]) coded.resize(coded_count_[layer]);
  }
  drop_swapped();
}

void KvStore::forget_codes(std::size_t tokens) noexcept {
  for (std::size_t& count : coded_count_) count = std::min(count, format().settled_pages(tokens));
}

void KvStore::trim(std::size_t tokens) noexcept {
  stored_ = tokens;
  if (tokens < loaded_) loaded_ = 0;
  drop_pages(pages_of(tokens));
  const std::size_t alone = only_coded(pools_.format(), tokens);
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    const KvShape& shape = pools_.shapes()[layer];
    const std::size_t behind = shape.window + slack_;
    const std::size_t dead = shape.window && tokens > behind ? (tokens - behind) / kPageTokens : 0;
    // Those that may come back leave memory when they are on the disk.
    const std::size_t coded = recalls(layer) ? 0 : std::min(alone, coded_count_[layer]);
    auto &list = pages_[layer], &coded_list = coded_[layer];
    // What was released before is a prefix: walk back from the newest that may go until one is gone already.
    const auto release = [](std::vector<PageRef>& pages, std::size_t begin, std::size_t end) {
      for (std::size_t page = std::min(end, pages.size()); page-- > begin && pages[page];) pages[page] = {};
    };
    if (!chains_.empty()) {
      auto& chain = chains_[layer].pages;
      if (chain.size() > coded_count_[layer]) chain.resize(coded_count_[layer]);
      release(chain, 0, dead);
    }
    release(coded_list, 0, dead);
    release(cold_[layer], 0, dead);
    release(list, kFirstPages, std::max(dead, coded));
    release(list, 0, std::min(dead, kFirstPages));
  }
}

std::size_t KvStore::oldest_restorable(std::size_t tokens) const {
  std::size_t oldest = loaded_;
  for (const KvShape& shape : pools_.shapes())
    if (shape.window && shape.kv_heads && tokens > shape.window + slack_) oldest = std::max(oldest, tokens - slack_);
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    // What is on the disk is not brought back to be written to.
    oldest = std::max({oldest, spilled_pages(layer) * kPageTokens, format().cold_since(cold_count_[layer])});
    if (!format().coded() || shapes()[layer].kv_heads == 0) continue;
    // Rows see the newest pages in bf16: they must be there.
    std::size_t first = pages_[layer].size();
    while (first > kFirstPages && (pages_[layer][first - 1] || is_swapped(layer, PageList::raw, first - 1))) --first;
    if (first > kFirstPages) oldest = std::max(oldest, (first + kRecentPages) * kPageTokens);
  }
  return oldest;
}

void KvStore::encode_page(std::size_t layer, std::size_t page, KvSide side) {
  const auto* tiles = reinterpret_cast<const bf16_t*>(pages_[layer][page].data());
  std::byte* out = coded_[layer][page].data();
  if (!tiles || !out) return;  // behind the window
  const KvShape& shape = pools_.shapes()[layer];
  const auto heads_of = [&](KvSide of) {
    std::vector<const bf16_t*> heads;
    for (std::size_t head = 0; head < shape.kv_heads; ++head) heads.push_back(tiles + shape.offset(of, head));
    return heads;
  };
  const std::vector<const bf16_t*> heads = heads_of(side);
  std::vector<const bf16_t*> keys;
  KvPlace place{layer, page * kPageTokens};
  if (format().codec(side).observes()) {
    keys = heads_of(KvSide::keys);
    place.observed = {observed_queries(layer, (page + kRecentPages + 1) * kPageTokens - kObservedTokens), keys.data()};
  }
  format().codec(side).encode(place, heads.data(), out + format().offset(side, layer));
}

void KvStore::encode(ThreadPool& pool, std::size_t layer, std::size_t pages) {
  if (pages <= coded_count_[layer]) return;
  const std::size_t first = std::max(coded_count_[layer], kFirstPages);
  // Keys and values of a page are two pieces of work.
  pool.parallel_for((pages - first) * 2, 1, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t i = from; i < to; ++i)
      encode_page(layer, first + i / 2, i % 2 != 0 ? KvSide::values : KvSide::keys);
  });
  coded_count_[layer] = pages;
}

void KvStore::encode_late(ThreadPool& pool, std::size_t pages) {
  const std::size_t layers = pages_.size();
  std::size_t first = pages;
  for (std::size_t layer = 0; layer < layers; ++layer)
    if (pools_.shapes()[layer].kv_heads > 0) first = std::min(first, coded_count_[layer]);
  if (pages <= first) return;
  first = std::max(first, kFirstPages);
  for (const KvSide side : {KvSide::keys, KvSide::values}) {
    const KvCodec& codec = format().codec(side);
    const std::size_t pieces = codec.across_layers() ? 1 : layers;
    pool.parallel_for((pages - first) * pieces, 1, [&](std::size_t from, std::size_t to, unsigned) {
      std::vector<const bf16_t*> tiles(layers);
      std::vector<std::byte*> keys(layers), values(layers);
      for (std::size_t i = from; i < to; ++i) {
        const std::size_t page = first + i / pieces;
        if (!codec.across_layers()) {
          if (pools_.shapes()[i % layers].kv_heads > 0) encode_page(i % layers, page, side);
          continue;
        }
        for (std::size_t layer = 0; layer < layers; ++layer) {
          const bool there = pools_.shapes()[layer].kv_heads > 0 && pages_[layer][page] && coded_[layer][page];
          tiles[layer] = there ? reinterpret_cast<const bf16_t*>(pages_[layer][page].data()) : nullptr;
          keys[layer] = there ? coded_[layer][page].data() : nullptr;
          values[layer] = there ? keys[layer] + format().offset(KvSide::values, layer) : nullptr;
        }
        codec.encode_layers({page * kPageTokens, tiles, keys, values});
      }
    });
  }
  std::fill(coded_count_.begin(), coded_count_.end(), pages);
}

void KvStore::cool(ThreadPool& pool, std::size_t layer) {
  const std::size_t pages = format().cold_pages(stored_), first = std::max(cold_count_[layer], kFirstPages);
  const KvShape& shape = shapes()[layer];
  if (pages <= first) return;
  pool.parallel_for((pages - first) * 2, 1, [&](std::size_t from, std::size_t to, unsigned) {
    std::vector<bf16_t> tiles;
    for (std::size_t i = from; i < to; ++i) {
      const std::size_t page = first + i / 2;
      const KvSide side = i % 2 != 0 ? KvSide::values : KvSide::keys;
      if (page >= cold_[layer].size() || !cold_[layer][page]) continue;  // behind the window
      const std::size_t each = kPageTiles * kv_tile_values(shape.dim(side));
      tiles.resize(shape.kv_heads * each);
      std::vector<const bf16_t*> heads;
      for (std::size_t head = 0; head < shape.kv_heads; ++head) {
        decode_head(layer, head, page, side, tiles.data() + head * each);
        heads.push_back(tiles.data() + head * each);
      }
      format().cold->codec(side).encode({layer, page * kPageTokens}, heads.data(),
                                        cold_[layer][page].data() + format().cold->offset(side, layer));
    }
  });
  for (std::size_t page = first; page < pages; ++page) coded_[layer][page] = {};
  cold_count_[layer] = pages;
}

void KvStore::decode_head(std::size_t layer, std::size_t head, std::size_t page, KvSide side, bf16_t* tiles) const {
  const KvFormat& format = format_of(layer, page);
  const KvCodec& codec = format.codec(side);
  const auto coded = [&](std::size_t of) { return coded_page(of, page) + format.offset(side, of); };
  KvPlace place{layer, page * kPageTokens};
  if (const std::size_t lender = codec.lender(layer); lender != layer) place.lent = coded(lender);
  codec.decode(place, head, coded(layer), tiles);
}

void KvStore::follow_chain(std::size_t layer, std::size_t page, bf16_t* tiles) {
  const auto* raw = reinterpret_cast<const bf16_t*>(pages_[layer][page].data());
  const KvShape& shape = shapes()[layer];
  const KvPlace place{layer, page * kPageTokens};
  const bool fresh = page >= coded_count_[layer];
  if (!coded_[layer][page] || (fresh && !raw)) return;  // behind the window
  for (const KvSide side : {KvSide::keys, KvSide::values}) {
    const KvCodec& codec = format().codec(side);
    std::byte* coded = coded_[layer][page].data() + format().offset(side, layer);
    if (codec.chained()) {
      if (fresh)
        codec.encode_onto(place, raw, coded, tiles);
      else
        codec.decode_onto(place, coded, tiles);
      continue;
    }
    if (fresh) encode_page(layer, page, side);
    for (std::size_t head = 0; head < shape.kv_heads; ++head)
      decode_head(layer, head, page, side, tiles + shape.offset(side, head));
  }
}

void KvStore::follow_chain(ThreadPool& pool, std::size_t layer, std::size_t pages) {
  const std::size_t lowest = pools_.chains()[layer];
  Chain& chain = chains_[lowest];
  const bool usable = chain.layer != kNone && chain.layer <= layer && chain.decoded == pages;
  if (usable && chain.layer == layer) return;
  std::vector<std::size_t> steps;  // layers from what is there up to this one
  for (std::size_t l = usable ? chain.layer + 1 : lowest; l <= layer; ++l)
    if (pools_.chains()[l] == lowest) steps.push_back(l);
  if (pages <= kFirstPages) return;
  pool.parallel_for(pages - kFirstPages, 1, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t page = from + kFirstPages; page < to + kFirstPages; ++page)
      if (auto* tiles = reinterpret_cast<bf16_t*>(chain.pages[page].data()))  // else behind the window
        for (const std::size_t l : steps) follow_chain(l, page, tiles);
  });
  for (const std::size_t l : steps) coded_count_[l] = std::max(coded_count_[l], pages);
  chain.layer = layer;
  chain.decoded = pages;
}

void KvStore::prepare(ThreadPool& pool, std::size_t layer, std::size_t pages) {
  if (!format().coded()) return;
  cool(pool, layer);
  if (format().chained())
    follow_chain(pool, layer, pages);
  else if (!format().late())
    encode(pool, layer, pages);
}

KvStore::PagePlace KvStore::place_of(std::size_t layer, std::size_t page, const DecodeRoom& room) const {
  const KvShape& shape = pools_.shapes()[layer];
  const std::size_t p = page % kPartPages;
  bf16_t* const excess = room.excess + p * kPageTiles * shape.k_dim;
  if (room.shared) return {room.tiles, room.tiles, excess};
  bf16_t* const tiles = room.tiles + p * shape.head_values();
  return {tiles, tiles + kPageTiles * kv_tile_values(shape.k_dim), excess};
}

void KvStore::coded_part(std::size_t layer, std::size_t head, std::size_t part, std::size_t coded,
                         const DecodeRoom& room, PartTiles& out) const {
  const KvShape& shape = pools_.shapes()[layer];
  const std::size_t key_values = kv_tile_values(shape.k_dim), value_values = kv_tile_values(shape.v_dim);
  for (std::size_t p = 0; p < kPartPages && part * kPartPages + p < coded; ++p) {
    const std::size_t page = part * kPartPages + p, first = p * kPageTiles;
    const std::byte* at = coded_page(layer, page);
    const bool exact = recalls(layer) && std::all_of(out.keys + first, out.keys + first + kPageTiles,
                                                     [](const bf16_t* tile) { return tile != nullptr; });
    if (!at || exact) continue;
    const PagePlace place = place_of(layer, page, room);
    const bf16_t *keys = place.keys, *values = place.values;
    const KvFormat& format = format_of(layer, page);
    const std::size_t rows = format.keys->excess_rows(layer);
    if (!chains_.empty()) {
      keys = reinterpret_cast<const bf16_t*>(chains_[pools_.chains()[layer]].pages[page].data()) +
             head * shape.head_values();
      values = keys + kPageTiles * key_values;
      if (rows > 0) format.keys->key_excess(layer, head, at + format.offset(KvSide::keys, layer), place.excess);
    } else {
      const auto find = [&](KvSide side, const bf16_t*& tiles, std::uint32_t& to_decode) {
        if (const bf16_t* there = format.codec(side).tiles(layer, head, at + format.offset(side, layer)))
          tiles = there;
        else
          to_decode |= 1u << p;
      };
      find(KvSide::keys, keys, out.coded_keys);
      find(KvSide::values, values, out.coded_values);
    }
    for (std::size_t t = 0; t < kPageTiles; ++t) {
      if (recalls(layer) && out.keys[first + t]) continue;
      out.keys[first + t] = keys + t * key_values;
      out.values[first + t] = values + t * value_values;
      if (rows > 0) out.excess[first + t] = place.excess + t * rows / kPageTiles * shape.k_dim;
    }
  }
}

KvAhead KvStore::decode_page(std::size_t layer, std::size_t head, std::size_t page, KvSide side,
                             const DecodeRoom& room) const {
  const PagePlace place = place_of(layer, page, room);
  decode_head(layer, head, page, side, side == KvSide::keys ? place.keys : place.values);
  if (const KvCodec& keys = *format_of(layer, page).keys; side == KvSide::keys && keys.excess_rows(layer) > 0)
    keys.key_excess(layer, head, coded_page(layer, page), place.excess);
  // All keys of the partition come before its values. What comes next is wanted too soon to be fetched.
  const std::size_t first = page / kPartPages * kPartPages,
                    turn = page - first + (side == KvSide::keys ? 0 : kPartPages) + 2;
  const bool beyond = turn >= 2 * kPartPages;
  const std::size_t next = beyond ? first + turn - kPartPages : first + turn % kPartPages;
  const KvSide of = beyond || turn < kPartPages ? KvSide::keys : KvSide::values;
  const std::byte* at = next < coded_count_[layer] ? coded_page(layer, next) : nullptr;
  if (!at) return {};
  const KvFormat& format = format_of(layer, next);
  const std::size_t bytes = format.codec(of).page_bytes(layer) / pools_.shapes()[layer].kv_heads;
  return {at + format.offset(of, layer) + head * bytes, bytes};
}

bf16_t* KvStore::key_tile(std::size_t layer, std::size_t head, std::size_t tile) {
  const KvShape& shape = pools_.shapes()[layer];
  auto* page = reinterpret_cast<bf16_t*>(pages_[layer][tile / kPageTiles].data());
  return page + shape.offset(KvSide::keys, head) + tile % kPageTiles * kv_tile_values(shape.k_dim);
}

bf16_t* KvStore::value_tile(std::size_t layer, std::size_t head, std::size_t tile) {
  const KvShape& shape = pools_.shapes()[layer];
  auto* page = reinterpret_cast<bf16_t*>(pages_[layer][tile / kPageTiles].data());
  return page + shape.offset(KvSide::values, head) + tile % kPageTiles * kv_tile_values(shape.v_dim);
}

bf16_t* KvStore::observed_queries(std::size_t layer, std::size_t position) {
  const std::size_t in_page = position % kPageTokens, first = kPageTokens - kObservedTokens;
  if (!format().observes() || in_page < first) return nullptr;
  const KvShape& shape = pools_.shapes()[layer];
  return reinterpret_cast<bf16_t*>(pages_[layer][position / kPageTokens].data() + shape.page_bytes()) +
         (in_page - first) * shape.query_values();
}

std::size_t KvStore::part(std::size_t layer, std::size_t head, std::size_t part, std::size_t tokens,
                          PartTiles& out) const {
  const std::size_t first = part * kPartTiles;
  const std::size_t tiles = std::min(kPartTiles, (tokens + kTileTokens - 1) / kTileTokens - first);
  for (std::size_t begin = 0; begin < tiles; begin += kPageTiles) {
    const std::size_t page = (first + begin) / kPageTiles, end = std::min(begin + kPageTiles, tiles);
    // Most pages are coded and nowhere else.
    const bool nowhere = !pages_[layer][page] && page >= lent_.size() && !recalls(layer);
    for (std::size_t i = begin; i < end; ++i) {
      const RawTile tile = nowhere ? RawTile{} : raw_tile(layer, head, first + i);
      out.keys[i] = tile.keys;
      out.values[i] = tile.values;
    }
  }
  return tiles;
}

std::size_t KvStore::same_parts(const KvStore& other, std::size_t layer, std::size_t parts) const {
  const auto at = [layer](const std::vector<std::vector<PageRef>>& lists, std::size_t page) {
    return page < lists[layer].size() ? lists[layer][page].data() : nullptr;
  };
  const auto same = [&](std::size_t page) {
    const auto both = [&](const auto& own, const auto& others) {
      return at(own, page) && at(own, page) == at(others, page);
    };
    // What is seen is the colder form.
    if (cold_count_[layer] > page || other.cold_count_[layer] > page) return both(cold_, other.cold_);
    return format().coded() && page >= kFirstPages ? both(coded_, other.coded_) : both(pages_, other.pages_);
  };
  for (std::size_t part = 0; part < parts; ++part)
    for (std::size_t page = part * kPartPages; page < (part + 1) * kPartPages; ++page)
      if (!same(page)) return part;
  return parts;
}

void KvStore::summarise(std::size_t layer, std::shared_ptr<const LowRankSummary> summary) {
  summaries_.resize(pages_.size());
  summaries_[layer] = std::move(summary);
}

Bytes KvStore::memory_bytes() const {
  std::vector<HeldPage> pages;
  add_pages(pages);
  Bytes total = 0;
  for (const HeldPage& page : pages) total += page.bytes;
  for (const auto& summary : summaries_)
    if (summary) total += summary->memory_bytes();
  return total;
}

void KvStore::add_pages(std::vector<HeldPage>& to) const {
  const auto add = [&to](const std::vector<PageRef>& list) {
    for (const PageRef& page : list)
      if (page) to.push_back({page.data(), page.bytes(), page.shared()});
  };
  for (const auto* lists : {&pages_, &coded_, &cold_})
    for (const auto& list : *lists) add(list);
  for (const Chain& chain : chains_) add(chain.pages);
}

}  // namespace snug
