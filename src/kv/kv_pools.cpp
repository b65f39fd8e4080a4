#include "kv/kv_pools.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.hpp"

namespace snug {

KvPools::KvPools(Ledger& ledger, std::vector<KvShape> shapes, KvFormat format, KvSpillOptions spill, KvSwapOptions swap)
    : ledger_(ledger), shapes_(std::move(shapes)), format_(std::move(format)), spill_options_(spill) {
  Bytes tables = 0;
  for (const KvFormat* f = &format_; f && f->coded(); f = f->cold.get())
    tables += f->keys->table_bytes() + f->values->table_bytes();
  tables_ = ledger.reserve(Tag::kv, tables);
  // Codes lie apart: as bf16 they might be infinite, and what a tile does not use must not be.
  std::map<std::size_t, std::shared_ptr<PagePool>> by_size, coded_by_size, cold_by_size, chained_by_size;
  const auto pool_for = [&](auto& pools, std::size_t bytes) {
    auto& pool = pools[bytes];
    if (!pool) pool = std::make_shared<PagePool>(ledger, bytes);
    return pool;
  };
  for (std::size_t layer = 0; layer < shapes_.size(); ++layer) {
    const bool some = shapes_[layer].kv_heads > 0;
    pools_.push_back(some ? pool_for(by_size, format_.raw_page_bytes(shapes_[layer])) : nullptr);
    coded_pools_.push_back(some && format_.coded() ? pool_for(coded_by_size, format_.page_bytes(layer)) : nullptr);
    cold_pools_.push_back(some && format_.cold ? pool_for(cold_by_size, format_.cold_bytes(layer)) : nullptr);
    if (!format_.chained()) continue;
    const auto below = layer_below(shapes_, layer);
    chains_.push_back(below ? chains_[*below] : layer);
    chain_pools_.push_back(some ? pool_for(chained_by_size, format_.raw_page_bytes(shapes_[layer])) : nullptr);
  }
  for (const auto* pools : {&by_size, &coded_by_size, &cold_by_size, &chained_by_size})
    for (const auto& [bytes, pool] : *pools) distinct_.push_back(pool.get());
  if (spill.recall > 0 && !format_.coded())
    fail<UsageError>("--kv-recall brings exact pages back beside coded ones: it needs a codec, e.g. --kv cq-1");
  if (spill.recall > 0 && format_.cold)
    fail<UsageError>("--kv-recall keeps all coded pages alike: --kv {} cannot go with it", format_.name);
  if (spill.recall > 0 && spill.limit > 0) fail<UsageError>("--kv-recall and --kv-memory exclude each other");
  if (spill.spills() && format_.couples_layers())
    fail<UsageError>(
        "{} keeps what layers have in common: its pages cannot go to the disk (no --kv-memory, no --kv-recall)",
        format_.name);
  if (spill.spills()) spill_ = std::make_unique<KvSpill>(ledger, spill, most_extent_bytes());
  std::size_t most_page = 0;
  for (const PagePool* pool : distinct_) most_page = std::max(most_page, pool->page_bytes());
  if (swap.on()) swap_ = std::make_unique<KvSwap>(ledger, swap, most_page);
}

Bytes kv_bytes(std::span<const KvShape> shapes, const KvFormat& format, std::size_t tokens) {
  Bytes total = 0;
  for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
    const KvShape& shape = shapes[layer];
    if (shape.kv_heads == 0) continue;
    const Bytes kept = shape.window ? std::min<Bytes>(tokens, shape.window) : tokens;
    const Bytes token = format.raw_page_bytes(shape) / kPageTokens;
    if (!format.coded()) {
      total += kept * token;
      continue;
    }
    const Bytes behind = tokens - kept, coded = format.coded_between_calls(tokens) * kPageTokens,
                dropped = only_coded(format, tokens) * kPageTokens, first = kFirstPages * kPageTokens,
                cold = format.cold_between_calls(tokens) * kPageTokens;
    const auto between = [](Bytes begin, Bytes end) { return end > begin ? end - begin : 0; };
    total += between(std::max(behind, first), cold) / kPageTokens * format.cold_bytes(layer) +
             between(std::max({behind, first, cold}), coded) / kPageTokens * format.page_bytes(layer) +
             (between(std::max(dropped, behind), tokens) + between(behind, std::min(first, dropped))) * token;
    if (format.chained() && !layer_below(shapes, layer)) {
      const Bytes seen = KvFormat::coded_pages(tokens - std::min<std::size_t>(tokens, 1)) * kPageTokens;
      total += between(std::max(behind, first), seen) * token;
    }
  }
  return total;
}

Bytes KvPools::most_bytes(std::size_t tokens, std::size_t rows) const {
  Bytes chunk = 0;
  for (const KvShape& shape : shapes_) chunk += format_.raw_page_bytes(shape) / kPageTokens;
  Bytes all = bytes(tokens) + (format_.coded() ? std::min(rows, tokens) * chunk : 0);
  // Before pages become cold, and while they do.
  for (std::size_t layer = 0; format_.cold && layer < shapes_.size(); ++layer)
    if (shapes_[layer].kv_heads > 0) all += kColdStep / kPageTokens * format_.page_bytes(layer);
  if (!spill_) return all;
  // What a call writes, and the pages that are not yet whole, coded or cold, stay; and those of an extent that is not
  // full.
  const std::size_t stay = kRecentPages + 2 + (format_.coded() ? kFirstPages : 0);
  Bytes least = (std::min(rows, tokens) + stay * kPageTokens) * chunk;
  for (std::size_t layer = 0; format_.cold && layer < shapes_.size(); ++layer)
    if (shapes_[layer].kv_heads > 0) least += (format_.cold_age + kColdStep) / kPageTokens * format_.page_bytes(layer);
  const Bytes staging = KvSpill::memory_bytes(spill_options_, most_extent_bytes());
  if (spill_options_.recall > 0) {
    Bytes part = 0;
    for (std::size_t layer = 0; layer < shapes_.size(); ++layer)
      if (recalls(layer)) part += KvSpill::extent_bytes(spill_options_, spill_page_bytes(layer));
    return all + part + spill_options_.recall + staging;
  }
  const Bytes limit = spill_->limit() == KvSpillOptions::kUnderPressure ? 0 : spill_->limit();
  return std::min(all, std::max(limit, least)) + staging;
}

Bytes KvPools::used_bytes() const {
  Bytes total = 0;
  for (const PagePool* pool : distinct_) total += pool->used_bytes();
  return total;
}

Bytes KvPools::free_bytes() const {
  Bytes total = 0;
  for (const PagePool* pool : distinct_) total += pool->free_bytes();
  return total;
}

KvUse KvPools::use() const {
  const auto used = [](const std::vector<std::shared_ptr<PagePool>>& of_layers) {
    const std::set<std::shared_ptr<PagePool>> distinct(of_layers.begin(), of_layers.end());
    Bytes total = 0;
    for (const auto& pool : distinct)
      if (pool) total += pool->used_bytes();
    return total;
  };
  return {used(pools_), used(coded_pools_), used(cold_pools_), used(chain_pools_), spill_ ? spill_->disk_bytes() : 0};
}

std::size_t KvPools::most_extent_bytes() const {
  std::size_t most = 0;
  for (std::size_t layer = 0; layer < shapes_.size(); ++layer)
    if (shapes_[layer].kv_heads > 0)
      most = std::max(most, KvSpill::extent_bytes(spill_options_, spill_page_bytes(layer)));
  return most;
}

Bytes KvPools::slack_bytes() const {
  Bytes total = tables_.bytes() + (swap_ ? swap_->memory_bytes() : 0);
  for (const PagePool* pool : distinct_) total += pool->slab_bytes();
  return total;
}

Bytes KvPools::growth_bytes(std::size_t stored, std::size_t tokens) const {
  const std::size_t raw = pages_of(tokens) - pages_of(stored),
                    coded = format_.coded_between_calls(tokens) - format_.coded_between_calls(stored),
                    cold = format_.cold_between_calls(tokens) - format_.cold_between_calls(stored);
  Bytes total = 0;
  for (std::size_t layer = 0; layer < shapes_.size(); ++layer)
    if (shapes_[layer].kv_heads > 0)
      total += raw * format_.raw_page_bytes(shapes_[layer]) + (coded > 0 ? coded * format_.page_bytes(layer) : 0) +
               cold * format_.cold_bytes(layer);
  return total;
}

}  // namespace snug
