#pragma once
/// Keys and values of one sequence: per layer a list of pages of 64 tokens, each page four key tiles and four value
/// tiles per KV head (kernels/kv_tile.hpp). Sliding-window layers give back the pages behind their window. With a codec
/// (kv_codec.hpp), older pages are kept coded.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.hpp"
#include "kv/kv_pools.hpp"
#include "kv/low_rank_summary.hpp"

namespace snug {

/// Pages of a layer that are there: in bf16 [0, first_end) and [raw_begin, raw_end), coded, and cold.
struct KvHeld {
  std::size_t first_end = 0, raw_begin = 0, raw_end = 0, coded_begin = 0, coded_end = 0, cold_begin = 0, cold_end = 0;

  std::size_t raw_pages() const { return first_end + raw_end - raw_begin; }
  std::size_t coded_pages() const { return coded_end - coded_begin; }
  std::size_t cold_pages() const { return cold_end - cold_begin; }
};

class KvStore {
public:
  /// `slack`: tokens behind a window that stay, so that truncate() can go back.
  KvStore(KvPools& pools, std::size_t slack);
  KvStore& operator=(const KvStore&) = delete;

  /// A store with the same tokens. Pages are shared; reserve() copies those that are about to be written to.
  std::unique_ptr<KvStore> fork() const;

  /// Makes room for tokens from the length that trim() was told (0 before) up to `tokens` in every layer, all or
  /// nothing. Throws OutOfBudget.
  void reserve(std::size_t tokens);
  /// Gives back pages past `tokens`, and pages behind the windows.
  void trim(std::size_t tokens) noexcept;
  /// Least length that truncate may go back to without loss (0 when every layer keeps all), given `tokens` stored.
  std::size_t oldest_restorable(std::size_t tokens) const;

  /// What a call that failed had coded beyond `tokens` is coded again.
  void forget_codes(std::size_t tokens) noexcept;
  /// Codes, or decodes, what a call's rows need that see so many pages of this layer coded. Their tokens are stored.
  /// REQUIRES: reserve(). Layers are best taken in order.
  void prepare(ThreadPool& pool, std::size_t layer, std::size_t pages);
  /// Codes pages of all layers after a call. REQUIRES: KvFormat::late().
  void encode_late(ThreadPool& pool, std::size_t pages);

  const KvFormat& format() const { return pools_.format(); }
  const std::vector<KvShape>& shapes() const { return pools_.shapes(); }
  bf16_t* key_tile(std::size_t layer, std::size_t head, std::size_t tile);
  bf16_t* value_tile(std::size_t layer, std::size_t head, std::size_t tile);
  /// Where a token's queries (bf16[query_values()]) go when codecs will observe them; null: nowhere.
  bf16_t* observed_queries(std::size_t layer, std::size_t position);

  /// Tile addresses of one partition of 256 tokens.
  struct PartTiles {
    const bf16_t* keys[kPartTiles];
    const bf16_t* values[kPartTiles];
    const bf16_t* excess[kPartTiles] = {};  ///< KvCodec::key_excess of each tile
    /// A bit of each page whose keys, values and excess are where decode_page() is to put them yet.
    std::uint32_t coded_keys = 0, coded_values = 0;
  };
  /// Tiles that hold tokens below `tokens`; released tiles are null. Returns their number.
  std::size_t part(std::size_t layer, std::size_t head, std::size_t index, std::size_t tokens, PartTiles& out) const;
  /// Where pages of a partition are decoded to.
  struct DecodeRoom {
    bf16_t* tiles;   ///< of a partition, keys and values
    bf16_t* excess;  ///< bf16[kPartTiles][k_dim]
    bool shared;     ///< tiles of one page at a time, of keys or values
  };
  /// Of the first `parts` partitions of a layer, so many are the same pages in both.
  std::size_t same_parts(const KvStore& other, std::size_t layer, std::size_t parts) const;
  /// Points to the tiles of those of the first `coded` pages in the partition that part() did not find all.
  void coded_part(std::size_t layer, std::size_t head, std::size_t index, std::size_t coded, const DecodeRoom& room,
                  PartTiles& out) const;
  /// Decodes a page that coded_part() pointed to. Returns what is likely to be decoded after the next one.
  KvAhead decode_page(std::size_t layer, std::size_t head, std::size_t page, KvSide side, const DecodeRoom& room) const;

  /// What stands for tokens of a layer that left; null: nothing.
  void summarise(std::size_t layer, std::shared_ptr<const LowRankSummary> summary);
  const LowRankSummary* summary(std::size_t layer) const {
    return summaries_.empty() ? nullptr : summaries_[layer].get();
  }

  /// Partitions of a layer that a call with so many rows of this sequence sees on the disk: the first so many.
  std::size_t parts_on_disk(std::size_t layer, std::size_t rows) const;
  /// While it lives, the partitions of a layer from the one asked for up to `end` are there for part() and
  /// coded_part(). One at a time.
  class Loan {
  public:
    Loan(KvStore& store, std::size_t end) : end(end), store_(store) {}
    ~Loan() { store_.give_back(); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    const std::size_t end;

  private:
    KvStore& store_;
  };
  /// REQUIRES: part < parts_on_disk(), the first of an extent. Throws IoError.
  Loan borrow(std::size_t layer, std::size_t part);

  /// A call with so many rows of this sequence sees codes, and tiles that come back from the disk (kv_recall.hpp).
  bool looks_back(std::size_t layer, std::size_t rows) const { return recalls(layer) && rows <= kRecallRows; }
  /// It sees all pages as they are, though they are coded.
  bool sees_exactly(std::size_t layer, std::size_t rows) const { return recalls(layer) && rows > kRecallRows; }
  /// What KvRecall wants of such a call: before attention, when a partition is done, and when all are.
  void begin_recall(std::size_t layer, std::size_t rows);
  void note_weights(std::size_t layer, std::size_t head, std::size_t part, std::span<const AttentionState> states,
                    const float* tile_sums);
  std::vector<std::pair<std::size_t, std::size_t>> choose_recall(std::size_t layer, std::size_t rows);
  void await_recall() { recall_->wait(); }

  /// Gives its pages up, by and by; those that others share stay theirs. Until swap_in(), only fork(), trim(),
  /// oldest_restorable() and memory_bytes() may be called. REQUIRES: KvPools::swap().
  void swap_out();
  /// Brings them back: when the transfer is done (and collected), all is as it was. Throws OutOfBudget: nothing has
  /// changed then.
  std::shared_ptr<const KvTransfer> swap_in();
  bool swapped() const { return !swapped_.empty(); }

  /// Of its pages and summaries in memory, shared ones too.
  Bytes memory_bytes() const;
  /// Adds its pages in memory.
  void add_pages(std::vector<HeldPage>& to) const;

  /// Whether any page has left memory.
  bool on_disk() const;
  KvHeld held(std::size_t layer) const;
  /// Calls f(std::span<std::byte>) with each page of held(): those in bf16, those that are coded, those that are cold.
  void each_page(std::size_t layer, const std::function<void(std::span<std::byte>)>& f) const;
  /// Whether a store with `tokens` tokens can go on from these pages.
  bool can_hold(std::size_t layer, std::size_t tokens, const KvHeld& held) const;
  /// Gets such pages for `tokens` tokens; the caller fills them. REQUIRES: empty, can_hold(). Throws OutOfBudget.
  void hold(std::size_t tokens, std::span<const KvHeld> layers);

private:
  KvStore(const KvStore&) = default;
  bool recalls(std::size_t layer) const { return pools_.recalls(layer); }
  /// One tile of a head, for a query that sees it so; null: it is not in memory.
  struct RawTile {
    const bf16_t *keys = nullptr, *values = nullptr;
  };
  RawTile raw_tile(std::size_t layer, std::size_t head, std::size_t tile) const;
  /// Coded or cold.
  const std::byte* coded_page(std::size_t layer, std::size_t page) const;
  const KvFormat& format_of(std::size_t layer, std::size_t page) const {
    return page < cold_count_[layer] ? *format().cold : format();
  }
  /// Pages go to the disk in bf16.
  bool spills_raw(std::size_t layer) const { return !format().coded() || recalls(layer); }
  /// Pages that go to the disk at once.
  std::size_t extent_pages(std::size_t layer) const;
  std::size_t spilled_pages(std::size_t layer) const;
  bool may_spill(std::size_t layer) const;
  void spill_extent(std::size_t layer);
  /// Of the layer that has fewest on the disk; whether a page may go at all.
  bool spill_next();
  /// Spills, evenly from all layers, until `bytes` more fit below the limit, or no further page may go.
  void make_room(Bytes bytes);
  void reserve_pages(std::size_t tokens);
  void give_back() noexcept;
  /// A chain of layers, one decoded from the other in the same memory.
  struct Chain {
    std::vector<PageRef> pages;                  ///< of all heads as they are
    std::size_t layer = kNone, decoded = kNone;  ///< whose they are now; the first so many
  };
  static constexpr std::size_t kNone = ~std::size_t{0};

  enum class PageList { raw, coded, cold };
  std::vector<PageRef>& list_of(std::size_t layer, PageList list) {
    return (list == PageList::raw ? pages_ : list == PageList::coded ? coded_ : cold_)[layer];
  }
  PagePool& pool_of(std::size_t layer, PageList list) {
    return list == PageList::raw     ? pools_.pool(layer)
           : list == PageList::coded ? pools_.coded_pool(layer)
                                     : pools_.cold_pool(layer);
  }
  /// A page that left by swap_out().
  struct Swapped {
    PageList list;
    std::size_t layer, page;
    std::shared_ptr<PageCopy> copy;
  };
  bool is_swapped(std::size_t layer, PageList list, std::size_t page) const;
  void drop_swapped() noexcept;

  void encode_page(std::size_t layer, std::size_t page, KvSide side);
  /// Codes pages of a layer that are not yet among the first `pages`.
  void encode(ThreadPool& pool, std::size_t layer, std::size_t pages);
  /// Those of a chain are coded one from the other; the first `pages` are decoded.
  void follow_chain(ThreadPool& pool, std::size_t layer, std::size_t pages);
  void follow_chain(std::size_t layer, std::size_t page, bf16_t* tiles);
  /// Codes pages of a layer anew that are old enough (KvFormat::cold).
  void cool(ThreadPool& pool, std::size_t layer);
  struct PagePlace {
    bf16_t *keys, *values, *excess;
  };
  PagePlace place_of(std::size_t layer, std::size_t page, const DecodeRoom& room) const;
  void decode_head(std::size_t layer, std::size_t head, std::size_t page, KvSide side, bf16_t* tiles) const;
  void drop_pages(std::size_t keep) noexcept;

  KvPools& pools_;
  std::size_t slack_;
  std::size_t stored_ = 0;                   ///< tokens; what follows them may be written
  std::size_t loaded_ = 0;                   ///< tokens that hold() got, when behind windows no slack came with them
  std::vector<std::vector<PageRef>> pages_;  ///< [layer][page]; none: given back
  std::vector<std::vector<PageRef>> coded_;  ///< the same
  std::vector<std::vector<PageRef>> cold_;   ///< the same, in place of those of coded_
  std::vector<std::shared_ptr<const LowRankSummary>> summaries_;  ///< of each layer, or empty
  std::vector<std::size_t> coded_count_;                          ///< of each layer: pages that are filled in coded_
  std::vector<std::size_t> cold_count_;                           ///< the same in cold_
  std::vector<std::vector<std::shared_ptr<const KvSpill::Extent>>> spilled_;  ///< of each layer, its first pages
  std::vector<const std::byte*> lent_;                                        ///< pages of a loan; null before it
  std::vector<ReadAhead::Lease> leases_;
  std::shared_ptr<KvRecall> recall_;  ///< its own; with KvPools::recalls()
  std::vector<Chain> chains_;         ///< of each KvPools::chains()
  std::vector<Swapped> swapped_;      ///< by layer, list and page
};

}  // namespace snug
