#pragma once
/// What the KV cache knows of a model: the shapes of its layers and how their keys are rotated.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention_part.hpp"

namespace snug {

inline constexpr std::size_t kPartTiles = kPartTokens / kTileTokens;
/// Queries that codecs weigh a page by come from so many tokens, the last of a later page. 32 are hardly better, and
/// where many query heads share a KV head they take more memory than the page's keys and values.
inline constexpr std::size_t kObservedTokens = 16;
inline constexpr std::size_t kPartPages = kPartTiles / kPageTiles;

enum class KvSide : std::uint8_t { keys, values };

inline float float_of(bf16_t x) {
  return std::bit_cast<float>(std::uint32_t{x} << 16);
}

/// "key" or "value": how names of what is learned of a side begin.
inline std::string side_name(KvSide side) {
  return side == KvSide::keys ? "key" : "value";
}

/// Shape of one layer's KV; kv_heads = 0 for a layer that keeps none.
struct KvShape {
  std::uint32_t kv_heads = 0, k_dim = 0, v_dim = 0;
  std::uint32_t window = 0;  ///< 0: everything stays
  std::uint32_t group = 1;   ///< query heads that share a KV head

  std::size_t dim(KvSide side) const { return side == KvSide::keys ? k_dim : v_dim; }
  /// bf16 values of one head's page: its key tiles, then its value tiles.
  std::size_t head_values() const { return kPageTokens * (k_dim + v_dim); }
  /// Where one side of a head begins among all heads of a page, in values.
  std::size_t offset(KvSide side, std::size_t head) const {
    return head * head_values() + (side == KvSide::values ? kPageTokens * k_dim : 0);
  }
  /// bf16 page of all heads, one after the other.
  std::size_t page_bytes() const { return kv_heads * head_values() * sizeof(bf16_t); }
  /// bf16 values of one token's queries, and bytes of those that a page keeps (KvCodec::observes).
  std::size_t query_values() const { return std::size_t{kv_heads} * group * k_dim; }
  std::size_t observed_bytes() const { return kObservedTokens * query_values() * sizeof(bf16_t); }
  bool operator==(const KvShape&) const = default;
};

/// The nearest layer below of the same shape and window.
inline std::optional<std::size_t> layer_below(std::span<const KvShape> shapes, std::size_t layer) {
  for (std::size_t below = layer; below-- > 0;)
    if (shapes[below] == shapes[layer]) return below;
  return {};
}

/// Rotary embedding of a layer's keys: pair i turns by position * inverse_frequency[i]. No pairs: none.
struct KvRope {
  std::vector<double> inverse_frequency;
  float magnitude = 1;      ///< factor on the rotated values
  bool split_half = false;  ///< pair i is (x[i], x[i + pairs]), else (x[2i], x[2i + 1])

  /// `part`: 0 or 1.
  std::size_t channel(std::size_t pair, std::size_t part) const {
    return split_half ? pair + part * inverse_frequency.size() : 2 * pair + part;
  }
};

struct KvModel {
  std::vector<KvShape> shapes;  ///< of each layer
  std::vector<KvRope> ropes;    ///< of each layer; empty: none is known
  std::string path;             ///< of the model's file: what codecs have learned lies beside it
  std::uint64_t fingerprint = 0;
};

}  // namespace snug
