#pragma once
/// How pages of keys and values are kept once their tokens are no longer the newest: one record per method, chosen for
/// keys and values apart ("kivi-2", "q8/kivi-2"). A page is coded once, when kRecentPages whole pages have come after
/// it, so what a query sees depends on its position alone and not on how a prompt was cut into chunks.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"

namespace snug {

inline constexpr std::size_t kPageTokens = 64;
inline constexpr std::size_t kPageTiles = kPageTokens / kTileTokens;
/// Whole pages that stay in bf16 before the one that is being filled.
inline constexpr std::size_t kRecentPages = 2;

enum class KvSide { keys, values };

class KvCodec {
public:
  virtual ~KvCodec() = default;
  virtual std::string_view name() const = 0;
  virtual std::size_t page_bytes(KvSide side, std::size_t dim) const = 0;
  /// `tiles`: the page's four tiles (kernels/kv_tile.hpp), one after the other.
  virtual void encode(KvSide side, const bf16_t* tiles, std::size_t dim, std::byte* page) const = 0;
  virtual void decode(KvSide side, const std::byte* page, std::size_t dim, bf16_t* tiles) const = 0;
};

/// Null: all pages stay as they are.
struct KvFormat {
  const KvCodec* keys = nullptr;
  const KvCodec* values = nullptr;

  bool coded() const { return keys != nullptr; }
  std::size_t page_bytes(std::size_t k_dim, std::size_t v_dim) const;
  std::string name() const;
  /// Pages that a query at `position` sees coded: the first so many.
  static std::size_t coded_pages(std::size_t position) {
    const std::size_t page = position / kPageTokens;
    return page > kRecentPages ? page - kRecentPages : 0;
  }
};

/// "NAME" or "KEYS/VALUES"; "bf16" (or nothing) for both: nothing is coded. Throws UsageError listing the known names.
KvFormat parse_kv_format(std::string_view text);
std::vector<const KvCodec*> kv_codecs();
/// "bf16, q8, ..."
std::string kv_codec_names();

}  // namespace snug
