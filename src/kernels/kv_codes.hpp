#pragma once
/// Integer codes of a page of keys or values, laid out so that they unpack into the tiles of kv_tile.hpp.
///
/// A page is `pairs` pairs of lines: of two dimensions for keys, of two tokens for values. A pair has `vectors` vectors
/// of 32 values whose lanes alternate between its two lines. `group` vectors (16 values of each line per vector) share
/// a scale and a least value per line: value = least + code * scale. In memory a group is
///   bf16 scale[2], bf16 least[2], then units of 16 bytes:
/// byte i of a unit holds, from the lowest bits up, the codes at i, 16 + i, 32 + i, ... of what the unit covers.

#include <cstddef>
#include <cstdint>

namespace snug {

/// Of products that are added to a page (KernelTable::add_low_rank_kv).
inline constexpr std::size_t kMostKvRank = 8;

struct KvCodes {
  std::size_t bits;            ///< 1, 2, 4 or 8
  std::size_t group;           ///< vectors
  std::size_t pairs, vectors;  ///< the last group of a pair may be shorter
  /// Where vectors of a pair, and pairs, lie in the tiles (bf16 values).
  std::size_t vector_stride, pair_stride;
  /// What the least and the largest code stand for: the extremes of a line in its group; the means of what lies below
  /// and above its mean (for 1 bit); or the ends of the steps that meet its values best.
  enum class Ends : std::uint8_t { extremes, half_means, fitted };
  Ends ends = Ends::extremes;

  constexpr std::size_t lines() const { return 2 * pairs; }
  constexpr std::size_t positions() const { return 16 * vectors; }
  /// Where a line's value at a position lies in the tiles.
  constexpr std::size_t index(std::size_t line, std::size_t position) const {
    return line / 2 * pair_stride + position / 16 * vector_stride + position % 16 * 2 + line % 2;
  }

  static constexpr std::size_t kHeadBytes = 8, kUnitBytes = 16;
  constexpr std::size_t group_bytes(std::size_t group_vectors) const {
    return kHeadBytes + (group_vectors * 4 * bits + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
  }
  constexpr std::size_t pair_bytes() const {
    const std::size_t rest = vectors % group;
    return vectors / group * group_bytes(group) + (rest ? group_bytes(rest) : 0);
  }
  constexpr std::size_t bytes() const { return pairs * pair_bytes(); }
};

}  // namespace snug
