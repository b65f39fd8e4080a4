#include "kv/kv_store.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace snug {

namespace {

std::size_t pages_of(std::size_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

/// Coded pages stay in bf16 too for so long that truncate() can go back by a page.
std::size_t only_coded(const KvFormat& format, std::size_t tokens) {
  const std::size_t coded = format.coded() ? KvFormat::coded_pages(tokens) : 0;
  return coded > 0 ? coded - 1 : 0;
}

}  // namespace

KvPools::KvPools(Ledger& ledger, std::vector<KvShape> shapes, KvFormat format)
    : shapes_(std::move(shapes)), format_(std::move(format)) {
  std::map<std::size_t, std::shared_ptr<PagePool>> by_size;
  const auto pool_for = [&](std::size_t bytes) {
    auto& pool = by_size[bytes];
    if (!pool) pool = std::make_shared<PagePool>(ledger, bytes);
    return pool;
  };
  for (std::size_t layer = 0; layer < shapes_.size(); ++layer) {
    const bool some = shapes_[layer].kv_heads > 0;
    pools_.push_back(some ? pool_for(shapes_[layer].page_bytes()) : nullptr);
    coded_pools_.push_back(some && format_.coded() ? pool_for(format_.page_bytes(layer)) : nullptr);
  }
}

Bytes kv_bytes(std::span<const KvShape> shapes, const KvFormat& format, std::size_t tokens) {
  Bytes total = 0;
  for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
    const KvShape& shape = shapes[layer];
    if (shape.kv_heads == 0) continue;
    const Bytes kept = shape.window ? std::min<Bytes>(tokens, shape.window) : tokens;
    const Bytes token = shape.page_bytes() / kPageTokens;
    if (!format.coded()) {
      total += kept * token;
      continue;
    }
    const Bytes behind = tokens - kept,
                coded = KvFormat::coded_pages(tokens - std::min<std::size_t>(tokens, 1)) * kPageTokens,
                dropped = only_coded(format, tokens) * kPageTokens;
    total += (coded > behind ? coded - behind : 0) / kPageTokens * format.page_bytes(layer) +
             (tokens - std::max(dropped, behind)) * token;
  }
  return total;
}

Bytes KvPools::most_bytes(std::size_t tokens, std::size_t rows) const {
  if (!format_.coded()) return bytes(tokens);
  Bytes chunk = 0;
  for (const KvShape& shape : shapes_) chunk += shape.page_bytes() / kPageTokens;
  return bytes(tokens) + std::min(rows, tokens) * chunk;
}

Bytes KvPools::slack_bytes() const {
  std::set<const PagePool*> distinct;
  for (const auto* pools : {&pools_, &coded_pools_})
    for (const auto& pool : *pools)
      if (pool) distinct.insert(pool.get());
  Bytes total = 0;
  for (const PagePool* pool : distinct) total += pool->slab_bytes();
  return total;
}

KvStore::KvStore(KvPools& pools, std::size_t slack)
    : pools_(pools),
      slack_(slack),
      pages_(pools.shapes().size()),
      coded_(pools.shapes().size()),
      coded_count_(pools.shapes().size()) {}

KvStore::~KvStore() {
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    for (std::byte* page : pages_[layer])
      if (page) pools_.pool(layer).free(page);
    for (std::byte*& page : coded_[layer]) free_coded(layer, page);
  }
}

void KvStore::free_coded(std::size_t layer, std::byte*& page) noexcept {
  if (page) pools_.coded_pool(layer).free(page);
  page = nullptr;
}

void KvStore::reserve(std::size_t tokens) {
  const std::size_t wanted = pages_of(tokens);
  const std::size_t coded = pools_.format().coded() && tokens > 0 ? KvFormat::coded_pages(tokens - 1) : 0;
  std::size_t before = 0;
  for (const auto& list : pages_) before = std::max(before, list.size());
  try {
    for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
      if (pools_.shapes()[layer].kv_heads == 0) continue;
      auto &list = pages_[layer], &coded_list = coded_[layer];
      list.reserve(wanted);
      while (list.size() < wanted) list.push_back(pools_.pool(layer).allocate());
      coded_list.reserve(coded);
      while (coded_list.size() < coded)
        coded_list.push_back(list[coded_list.size()] ? pools_.coded_pool(layer).allocate() : nullptr);
    }
  } catch (...) {
    drop_pages(before);
    throw;
  }
}

/// Of all pages keeps the first `keep`, and codes only where they are filled in.
void KvStore::drop_pages(std::size_t keep) noexcept {
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    coded_count_[layer] = std::min(coded_count_[layer], keep);
    auto &list = pages_[layer], &coded = coded_[layer];
    for (; list.size() > keep; list.pop_back())
      if (list.back()) pools_.pool(layer).free(list.back());
    for (; coded.size() > coded_count_[layer]; coded.pop_back()) free_coded(layer, coded.back());
  }
}

void KvStore::forget_codes(std::size_t tokens) noexcept {
  for (std::size_t& count : coded_count_) count = std::min(count, tokens / kPageTokens);
}

void KvStore::trim(std::size_t tokens) noexcept {
  drop_pages(pages_of(tokens));
  const std::size_t alone = only_coded(pools_.format(), tokens);
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    const KvShape& shape = pools_.shapes()[layer];
    const std::size_t behind = shape.window + slack_;
    const std::size_t dead = shape.window && tokens > behind ? (tokens - behind) / kPageTokens : 0;
    const std::size_t coded = std::min(alone, coded_count_[layer]);
    auto &list = pages_[layer], &coded_list = coded_[layer];
    for (std::size_t page = std::min(dead, coded_list.size()); page-- > 0 && coded_list[page];)
      free_coded(layer, coded_list[page]);
    // Released pages are a prefix: walk back from the newest that may go until one is gone already.
    for (std::size_t page = std::min(std::max(dead, coded), list.size()); page-- > 0 && list[page];) {
      pools_.pool(layer).free(list[page]);
      list[page] = nullptr;
    }
  }
}

std::size_t KvStore::oldest_restorable(std::size_t tokens) const {
  std::size_t oldest = 0;
  for (const KvShape& shape : pools_.shapes())
    if (shape.window && shape.kv_heads && tokens > shape.window + slack_) oldest = std::max(oldest, tokens - slack_);
  // Rows see the newest pages in bf16: they must be there.
  if (const std::size_t alone = only_coded(pools_.format(), tokens); alone > 0)
    oldest = std::max(oldest, (alone + kRecentPages) * kPageTokens);
  return oldest;
}

void KvStore::encode(ThreadPool& pool, std::size_t layer, std::size_t pages) {
  const std::size_t first = coded_count_[layer];
  if (pages <= first) return;
  const KvShape& shape = pools_.shapes()[layer];
  const KvFormat& format = pools_.format();
  // Keys and values of a page are two pieces of work.
  pool.parallel_for((pages - first) * 2, 1, [&](std::size_t from, std::size_t to, unsigned) {
    std::vector<const bf16_t*> heads(shape.kv_heads);
    for (std::size_t i = from; i < to; ++i) {
      const std::size_t page = first + i / 2;
      const auto* tiles = reinterpret_cast<const bf16_t*>(pages_[layer][page]);
      std::byte* out = coded_[layer][page];
      if (!tiles || !out) continue;  // behind the window
      const bool values = i % 2 != 0;
      for (std::size_t head = 0; head < shape.kv_heads; ++head)
        heads[head] = tiles + head * shape.head_values() + (values ? kPageTokens * shape.k_dim : 0);
      const KvPlace place{layer, page * kPageTokens};
      if (values)
        format.values->encode(place, heads.data(), out + format.keys->page_bytes(layer));
      else
        format.keys->encode(place, heads.data(), out);
    }
  });
  coded_count_[layer] = pages;
}

void KvStore::decode_part(std::size_t layer, std::size_t head, std::size_t part, std::size_t coded, bf16_t* memory,
                          PartTiles& out) const {
  const KvShape& shape = pools_.shapes()[layer];
  const KvFormat& format = pools_.format();
  const std::size_t key_values = kv_tile_values(shape.k_dim), value_values = kv_tile_values(shape.v_dim);
  const std::size_t key_bytes = format.keys->page_bytes(layer);
  for (std::size_t p = 0; p < kPartPages && part * kPartPages + p < coded; ++p) {
    const std::byte* page = coded_[layer][part * kPartPages + p];
    if (!page) continue;
    bf16_t *keys = memory + p * shape.head_values(), *values = keys + kPageTiles * key_values;
    const KvPlace place{layer, part * kPartTokens + p * kPageTokens};
    if (const KvCodes* codes = format.keys->codes(layer))
      out.key_pages[p] = page + head * codes->bytes();
    else
      format.keys->decode(place, head, page, keys);
    if (const KvCodes* codes = format.values->codes(layer))
      out.value_pages[p] = page + key_bytes + head * codes->bytes();
    else
      format.values->decode(place, head, page + key_bytes, values);
    for (std::size_t t = 0; t < kPageTiles; ++t) {
      out.keys[p * kPageTiles + t] = keys + t * key_values;
      out.values[p * kPageTiles + t] = values + t * value_values;
    }
  }
}

bf16_t* KvStore::key_tile(std::size_t layer, std::size_t head, std::size_t tile) {
  const KvShape& shape = pools_.shapes()[layer];
  auto* page = reinterpret_cast<bf16_t*>(pages_[layer][tile / kPageTiles]);
  return page + head * shape.head_values() + tile % kPageTiles * kv_tile_values(shape.k_dim);
}

bf16_t* KvStore::value_tile(std::size_t layer, std::size_t head, std::size_t tile) {
  const KvShape& shape = pools_.shapes()[layer];
  auto* page = reinterpret_cast<bf16_t*>(pages_[layer][tile / kPageTiles]);
  return page + head * shape.head_values() + kPageTokens * shape.k_dim +
         tile % kPageTiles * kv_tile_values(shape.v_dim);
}

std::size_t KvStore::part(std::size_t layer, std::size_t head, std::size_t part, std::size_t tokens,
                          PartTiles& out) const {
  const KvShape& shape = pools_.shapes()[layer];
  const std::size_t first = part * kPartTiles;
  const std::size_t tiles = std::min(kPartTiles, (tokens + kTileTokens - 1) / kTileTokens - first);
  for (std::size_t i = 0; i < tiles; ++i) {
    const auto* page = reinterpret_cast<const bf16_t*>(pages_[layer][(first + i) / kPageTiles]);
    const std::size_t in_page = (first + i) % kPageTiles;
    if (page) page += head * shape.head_values();
    out.keys[i] = page ? page + in_page * kv_tile_values(shape.k_dim) : nullptr;
    out.values[i] = page ? page + kPageTokens * shape.k_dim + in_page * kv_tile_values(shape.v_dim) : nullptr;
  }
  return tiles;
}

Bytes KvStore::memory_bytes() const {
  Bytes total = 0;
  for (std::size_t layer = 0; layer < pages_.size(); ++layer) {
    for (const std::byte* page : pages_[layer])
      if (page) total += pools_.shapes()[layer].page_bytes();
    for (const std::byte* page : coded_[layer])
      if (page) total += pools_.coded_pool(layer).page_bytes();
  }
  return total;
}

}  // namespace snug
