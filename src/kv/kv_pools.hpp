#pragma once
/// Memory for the pages of all sequences of a model, and what sequences will need of it.

#include <memory>
#include <span>
#include <vector>

#include "kv/kv_codec.hpp"
#include "kv/kv_recall.hpp"
#include "kv/kv_shape.hpp"
#include "kv/kv_spill.hpp"
#include "kv/kv_swap.hpp"
#include "kv/page_pool.hpp"

namespace snug {

constexpr std::size_t pages_of(std::size_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}
/// Pages that are kept coded and no longer in bf16: those stay in both forms for so long that truncate() can go back by
/// a page.
inline std::size_t only_coded(const KvFormat& format, std::size_t tokens) {
  const std::size_t coded = format.coded() ? KvFormat::coded_pages(tokens) : 0;
  return coded > 0 ? coded - 1 : 0;
}

/// What a sequence of `tokens` keeps between two calls (without what its last page has left free, and the pools).
/// Layers with a window keep no more than that.
Bytes kv_bytes(std::span<const KvShape> shapes, const KvFormat& format, std::size_t tokens);

/// Where the pages of all sequences are. In memory: in bf16, coded, cold, reconstructions; and on the disk.
struct KvUse {
  Bytes raw = 0, coded = 0, cold = 0, chains = 0, disk = 0;

  Bytes in_memory() const { return raw + coded + cold + chains; }
};

/// Pools shared by all sequences of a model.
class KvPools {
public:
  KvPools(Ledger& ledger, std::vector<KvShape> shapes, KvFormat format = {}, KvSpillOptions spill = {},
          KvSwapOptions swap = {});
  const std::vector<KvShape>& shapes() const { return shapes_; }
  const KvFormat& format() const { return format_; }
  PagePool& pool(std::size_t layer) { return *pools_[layer]; }
  /// Of coded pages. REQUIRES: format().coded().
  PagePool& coded_pool(std::size_t layer) { return *coded_pools_[layer]; }
  /// Of cold pages. REQUIRES: format().cold.
  PagePool& cold_pool(std::size_t layer) { return *cold_pools_[layer]; }
  /// Of reconstructions (chains()), which stay where pages in bf16 go.
  PagePool& chain_pool(std::size_t layer) { return *chain_pools_[layer]; }
  /// Of each layer's chain of layers that are decoded one from the other: its lowest layer. Empty: there are none.
  const std::vector<std::size_t>& chains() const { return chains_; }
  /// kv_bytes() of this model.
  Bytes bytes(std::size_t tokens) const { return kv_bytes(shapes_, format_, tokens); }
  /// The same while it takes in up to `rows` more in one call.
  Bytes most_bytes(std::size_t tokens, std::size_t rows) const;
  KvUse use() const;
  /// Of pages in memory.
  Bytes used_bytes() const;
  /// Null: all pages stay in memory.
  KvSpill* spill() const { return spill_.get(); }
  /// Null: pages leave memory with their sequences only.
  KvSwap* swap() const { return swap_.get(); }
  /// Of pages that are free, in slabs that others keep: it takes nothing from the ledger to use them.
  Bytes free_bytes() const;
  /// Pages of this layer are coded in memory and exact on the disk (kv_recall.hpp).
  bool recalls(std::size_t layer) const {
    return spill_options_.recall > 0 && shapes_[layer].kv_heads > 0 && shapes_[layer].window == 0;
  }
  /// For one sequence. REQUIRES: some layer recalls(). Throws OutOfBudget.
  std::shared_ptr<KvRecall> new_recall() const {
    return std::make_shared<KvRecall>(ledger_, shapes_, spill_options_.recall);
  }
  /// Of a page as it goes to the disk.
  std::size_t spill_page_bytes(std::size_t layer) const {
    if (!format_.coded() || recalls(layer)) return format_.raw_page_bytes(shapes_[layer]);
    return format_.cold ? format_.cold_bytes(layer) : format_.page_bytes(layer);
  }
  /// Memory beyond the pages themselves, at most: a part-filled slab of every pool, and the codecs' tables.
  Bytes slack_bytes() const;

  /// Of pages for tokens from `stored` up to `tokens`, coded ones too.
  Bytes growth_bytes(std::size_t stored, std::size_t tokens) const;

private:
  std::size_t most_extent_bytes() const;

  Ledger& ledger_;
  std::vector<KvShape> shapes_;
  KvFormat format_;
  std::vector<std::size_t> chains_;
  Reservation tables_;  ///< of the codecs
  std::vector<std::shared_ptr<PagePool>> pools_, coded_pools_, cold_pools_,
      chain_pools_;                        ///< layers of one page size share a pool
  std::vector<const PagePool*> distinct_;  ///< of these
  KvSpillOptions spill_options_;
  std::unique_ptr<KvSpill> spill_;
  std::unique_ptr<KvSwap> swap_;  ///< lets go of pages that it still has
};

}  // namespace snug
