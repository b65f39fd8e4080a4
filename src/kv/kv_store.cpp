#include "kv/kv_store.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace snug {

KvPools::KvPools(Ledger& ledger, std::vector<KvShape> shapes) : shapes_(std::move(shapes)) {
  std::map<std::size_t, std::shared_ptr<PagePool>> by_size;
  for (const KvShape& shape : shapes_) {
    if (shape.kv_heads == 0) {
      pools_.emplace_back();
      continue;
    }
    auto& pool = by_size[shape.page_bytes()];
    if (!pool) pool = std::make_shared<PagePool>(ledger, shape.page_bytes());
    pools_.push_back(pool);
  }
}

Bytes KvPools::slack_bytes() const {
  std::set<const PagePool*> distinct;
  for (const auto& pool : pools_)
    if (pool) distinct.insert(pool.get());
  Bytes total = 0;
  for (const PagePool* pool : distinct) total += pool->slab_bytes();
  return total;
}

KvStore::KvStore(KvPools& pools, std::size_t slack) : pools_(pools), slack_(slack) {
  std::size_t total = 0;
  for (const KvShape& shape : pools.shapes()) {
    first_.push_back(total);
    total += shape.kv_heads;
  }
  pages_.resize(total);
}

KvStore::~KvStore() {
  for (std::size_t layer = 0; layer < first_.size(); ++layer)
    for (std::size_t head = 0; head < pools_.shapes()[layer].kv_heads; ++head)
      for (std::byte* page : pages_[index(layer, head)])
        if (page) pools_.pool(layer).free(page);
}

void KvStore::reserve(std::size_t tokens) {
  const std::size_t wanted = (tokens + kPageTokens - 1) / kPageTokens;
  const std::size_t before = pages_.empty() ? 0 : pages_.front().size();
  try {
    for (std::size_t layer = 0; layer < first_.size(); ++layer)
      for (std::size_t head = 0; head < pools_.shapes()[layer].kv_heads; ++head) {
        auto& list = pages_[index(layer, head)];
        list.reserve(wanted);
        while (list.size() < wanted) list.push_back(pools_.pool(layer).allocate());
      }
  } catch (...) {
    trim(before * kPageTokens);
    throw;
  }
}

void KvStore::trim(std::size_t tokens) noexcept {
  const std::size_t keep = (tokens + kPageTokens - 1) / kPageTokens;
  for (std::size_t layer = 0; layer < first_.size(); ++layer) {
    const KvShape& shape = pools_.shapes()[layer];
    const std::size_t behind = shape.window + slack_;
    const std::size_t dead = shape.window && tokens > behind ? (tokens - behind) / kPageTokens : 0;
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      auto& list = pages_[index(layer, head)];
      while (list.size() > keep) {
        if (list.back()) pools_.pool(layer).free(list.back());
        list.pop_back();
      }
      // Released pages are a prefix: walk back from the newest that may go until one is gone already.
      for (std::size_t page = std::min(dead, list.size()); page-- > 0 && list[page];) {
        pools_.pool(layer).free(list[page]);
        list[page] = nullptr;
      }
    }
  }
}

std::size_t KvStore::oldest_restorable(std::size_t tokens) const {
  std::size_t oldest = 0;
  for (const KvShape& shape : pools_.shapes())
    if (shape.window && shape.kv_heads && tokens > shape.window + slack_) oldest = std::max(oldest, tokens - slack_);
  return oldest;
}

bf16_t* KvStore::key_tile(std::size_t layer, std::size_t head, std::size_t tile) {
  auto* page = reinterpret_cast<bf16_t*>(pages_[index(layer, head)][tile / kPageTiles]);
  return page + tile % kPageTiles * kv_tile_values(pools_.shapes()[layer].k_dim);
}

bf16_t* KvStore::value_tile(std::size_t layer, std::size_t head, std::size_t tile) {
  const KvShape& shape = pools_.shapes()[layer];
  auto* page = reinterpret_cast<bf16_t*>(pages_[index(layer, head)][tile / kPageTiles]);
  return page + kPageTiles * kv_tile_values(shape.k_dim) + tile % kPageTiles * kv_tile_values(shape.v_dim);
}

std::size_t KvStore::part(std::size_t layer, std::size_t head, std::size_t part, std::size_t tokens,
                          PartTiles& out) const {
  const KvShape& shape = pools_.shapes()[layer];
  const auto& list = pages_[index(layer, head)];
  const std::size_t first = part * kPartTiles;
  const std::size_t tiles = std::min(kPartTiles, (tokens + kTileTokens - 1) / kTileTokens - first);
  for (std::size_t i = 0; i < tiles; ++i) {
    const auto* page = reinterpret_cast<const bf16_t*>(list[(first + i) / kPageTiles]);
    const std::size_t in_page = (first + i) % kPageTiles;
    out.keys[i] = page ? page + in_page * kv_tile_values(shape.k_dim) : nullptr;
    out.values[i] =
        page ? page + kPageTiles * kv_tile_values(shape.k_dim) + in_page * kv_tile_values(shape.v_dim) : nullptr;
  }
  return tiles;
}

Bytes KvStore::memory_bytes() const {
  Bytes total = 0;
  for (std::size_t layer = 0; layer < first_.size(); ++layer)
    for (std::size_t head = 0; head < pools_.shapes()[layer].kv_heads; ++head)
      for (const std::byte* page : pages_[index(layer, head)])
        if (page) total += pools_.shapes()[layer].page_bytes();
  return total;
}

}  // namespace snug
