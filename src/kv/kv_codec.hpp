#pragma once
/// How pages of keys and values are kept once their tokens are no longer the newest: one class and one row in the table
/// of methods for each, chosen for keys and values apart ("kivi-2", "q8/kivi-2"). A page is coded once, when
/// kRecentPages whole pages have come after it, so what a query sees depends on its position alone and not on how a
/// prompt was cut into chunks.

#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kv/kv_choice.hpp"
#include "kv/kv_learning.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

/// Whole pages that stay in bf16 before the one that is being filled.
inline constexpr std::size_t kRecentPages = 2;
/// Pages at the start that stay in bf16 for good: attention rests on the first tokens whatever they say, and their keys
/// and values are unlike all others'.
inline constexpr std::size_t kFirstPages = 1;
/// Pages become those of a colder format at lengths that are multiples of this.
inline constexpr std::size_t kColdStep = 512;
/// Least age of their tokens: they are no longer in bf16 then.
inline constexpr std::size_t kLeastColdAge = (kRecentPages + 2) * kPageTokens;

/// What codecs that observe() weigh a page by.
struct KvObserved {
  /// Rotated and scaled queries of the last tokens before the page may be coded, which end the page kRecentPages after
  /// it: bf16[kObservedTokens][query heads][k_dim].
  const bf16_t* queries = nullptr;
  const bf16_t* const* keys = nullptr;  ///< each head's key tiles of the page, for either side
};

/// Where a page stands: its layer and the position of its first token.
struct KvPlace {
  std::size_t layer = 0, position = 0;
  KvObserved observed{};            ///< when it is encoded
  const std::byte* lent = nullptr;  ///< when it is decoded: this side's coded page of KvCodec::lender()
};

/// Pages of all layers for the same 64 tokens. Those of a layer that keeps none of them are null.
struct KvLayerPages {
  std::size_t position = 0;
  std::span<const bf16_t* const> tiles;  ///< of each layer: all heads as they are (KvShape::page_bytes)
  std::span<std::byte* const> keys;      ///< coded, of each layer
  std::span<std::byte* const> values;    ///< coded, of each layer

  std::byte* coded(KvSide side, std::size_t layer) const { return side == KvSide::keys ? keys[layer] : values[layer]; }
};

/// One side (keys or values) of a model's cache. A page holds 64 tokens of all heads of a layer; tiles are four per
/// page and head, one after the other (kernels/kv_tile.hpp). Keys are rotated; a codec that wants them as they were
/// before turns them back (kv/rope_page.hpp).
class KvCodec {
public:
  virtual ~KvCodec() = default;
  /// Of a coded page of this layer, all heads.
  virtual std::size_t page_bytes(std::size_t layer) const = 0;
  /// `heads`: each head's tiles.
  virtual void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const = 0;
  /// One head's tiles. Called from many threads at once.
  virtual void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const = 0;
  /// A head's tiles in a page that has them as they are: read in place of decode().
  virtual const bf16_t* tiles(std::size_t /*layer*/, std::size_t /*head*/, const std::byte* /*page*/) const {
    return nullptr;
  }
  /// Where it is known how much more keys of a page scatter than those that they stand for: in so many rows, each of as
  /// many tiles, bf16[k_dim] differences of variances (kv/key_excess.hpp). 0: it is not.
  virtual std::size_t excess_rows(std::size_t /*layer*/) const { return 0; }
  virtual void key_excess(std::size_t /*layer*/, std::size_t /*head*/, const std::byte* /*page*/, bf16_t*) const {}
  /// Memory of tables that serve all pages of the model.
  virtual Bytes table_bytes() const { return 0; }

  /// What a page becomes depends on queries that met it: pages in bf16 keep those of their last tokens behind keys and
  /// values, and encode() finds KvPlace::observed.
  virtual bool observes() const { return false; }

  /// Pages are coded after a forward call, when those of all layers are there, and not before their layer's attention.
  virtual bool late() const { return across_layers(); }
  /// What a page becomes depends on other layers: encode_layers() codes those of all layers, in place of encode().
  virtual bool across_layers() const { return false; }
  virtual void encode_layers(const KvLayerPages&) const {}
  /// The layer whose coded page decode() needs beside this layer's; this one: none.
  virtual std::size_t lender(std::size_t layer) const { return layer; }
  /// A page is coded and decoded from the reconstruction of the layer below (layer_below()): encode_onto() and
  /// decode_onto() turn that into this layer's, in place of encode() and decode(). `tiles`: all heads, keys and values
  /// (KvShape::page_bytes), of which this side is written; keys come first. The lowest layer finds any values there.
  virtual bool chained() const { return false; }
  /// `as_they_are`: like `tiles`.
  virtual void encode_onto(KvPlace, const bf16_t* /*as_they_are*/, std::byte* /*page*/, bf16_t* /*tiles*/) const {}
  virtual void decode_onto(KvPlace, const std::byte*, bf16_t*) const {}
};

/// How keys and values of one model are kept. Null: all pages stay as they are.
struct KvFormat {
  std::string name = "bf16";
  std::shared_ptr<const KvCodec> keys, values;
  std::uint64_t learned = 0;  ///< fingerprint of the tables that they, and those of `cold`, have learned
  /// What pages become that are older than `cold_age` tokens; null: they stay as they are.
  std::shared_ptr<const KvFormat> cold{};
  std::size_t cold_age = 0;

  bool coded() const { return keys != nullptr; }
  const KvCodec& codec(KvSide side) const { return side == KvSide::keys ? *keys : *values; }
  /// Of a coded page of this layer: keys, then values.
  std::size_t page_bytes(std::size_t layer) const { return keys->page_bytes(layer) + values->page_bytes(layer); }
  /// Where a side begins in it.
  std::size_t offset(KvSide side, std::size_t layer) const {
    return side == KvSide::keys ? 0 : keys->page_bytes(layer);
  }
  /// Pages that a query at `position` sees coded: the first so many, without kFirstPages.
  static std::size_t coded_pages(std::size_t position) {
    const std::size_t page = position / kPageTokens;
    return page > kRecentPages ? page - kRecentPages : 0;
  }
  /// Pages that rows see cold in a call that begins at `position`: the first so many, without kFirstPages.
  std::size_t cold_pages(std::size_t position) const {
    const std::size_t step = position / kColdStep * kColdStep;
    return cold && step > cold_age ? (step - cold_age) / kPageTokens : 0;
  }
  /// The same between two calls, with so many tokens stored.
  std::size_t cold_between_calls(std::size_t tokens) const { return tokens > 0 ? cold_pages(tokens - 1) : 0; }
  /// Of a cold page of this layer.
  std::size_t cold_bytes(std::size_t layer) const { return cold ? cold->page_bytes(layer) : 0; }
  /// Least length of a sequence with so many cold pages.
  std::size_t cold_since(std::size_t pages) const {
    return pages == 0 ? 0 : (pages * kPageTokens + cold_age + kColdStep - 1) / kColdStep * kColdStep;
  }
  /// Pages are coded after a call (KvCodec::late).
  bool late() const { return coded() && (keys->late() || values->late()); }
  /// Layers are decoded one from the other (KvCodec::chained).
  bool chained() const { return coded() && (keys->chained() || values->chained()); }
  /// What layers have in common is kept once.
  bool couples_layers() const { return chained() || (coded() && (keys->across_layers() || values->across_layers())); }
  /// Pages in bf16 keep queries (KvCodec::observes).
  bool observes() const { return coded() && (keys->observes() || values->observes()); }
  /// Of a page in bf16.
  std::size_t raw_page_bytes(const KvShape& shape) const {
    return shape.page_bytes() + (observes() ? shape.observed_bytes() : 0);
  }
  /// Pages whose codes the first `tokens` tokens determine.
  std::size_t settled_pages(std::size_t tokens) const {
    return observes() ? coded_pages(tokens) : tokens / kPageTokens;
  }
  /// Pages that are coded between two calls, with so many tokens stored.
  std::size_t coded_between_calls(std::size_t tokens) const {
    if (!coded() || tokens == 0) return 0;
    return late() ? settled_pages(tokens) : coded_pages(tokens - 1);
  }
  /// Most rows that a call may have which begins at `position`. With late(), all pages that its rows see coded were
  /// settled before it; with a colder format, all see the same pages cold.
  std::size_t most_rows(std::size_t position) const {
    std::size_t most = std::numeric_limits<std::size_t>::max();
    if (late()) most = (position / kPageTokens + (observes() ? 0 : kRecentPages) + 1) * kPageTokens - position;
    return cold ? std::min(most, kColdStep - position % kColdStep) : most;
  }
};

/// Throws Error when a method needs what was not learned yet, or does not suit the model.
KvFormat make_kv_format(const KvChoice& choice, std::shared_ptr<const KvModel> model);

/// A way to keep pages.
struct KvMethod {
  std::string_view name, help;
  /// `learned`: what `learn` made, of methods that have it.
  std::unique_ptr<KvCodec> (*make)(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned);
  /// Of methods that `snug calibrate` prepares: both sides' tables, which then lie beside the model.
  KvTables (*learn)(const KvLearning& from) = nullptr;
};
std::span<const KvMethod> kv_methods();
/// Throws UsageError listing the known names.
const KvMethod& find_kv_method(std::string_view name);
/// "bf16, q8, ..."
std::string kv_method_names();

}  // namespace snug
