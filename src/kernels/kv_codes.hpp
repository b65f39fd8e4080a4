#pragma once
/// Integer codes of a page of 64 keys or values of one head, laid out so that they become tiles in whole vectors.
///
/// Seen from attention's products, a page is `columns` columns of 16 lanes by `depth` lines: a column is 16 tokens and
/// a line a dimension for keys (scores add over dimensions), a column is 16 dimensions and a line a token for values
/// (sums add over tokens). `group` columns share a scale and a least value per line: value = least + code * scale.
///
/// In memory, per group of columns: bf16 scale[depth], bf16 least[depth]; then per column units of 64 bytes. A unit is
/// 32 words of 16 bits; word 2 * lane + i holds the codes of lines 2 p + i of 16 / bits consecutive pairs p of lines,
/// from the lowest bits up.

#include <cstddef>
#include <cstdint>

namespace snug {

struct KvCodes {
  std::size_t bits;     ///< 1, 2, 4 or 8
  std::size_t depth;    ///< a multiple of 16
  std::size_t columns;  ///< the last group may be shorter
  std::size_t group;
  /// Where columns and pairs of lines lie in the tiles of the page (bf16 values; kernels/kv_tile.hpp).
  std::size_t column_stride, pair_stride;
  /// What the least and the largest code stand for: the extremes of a line in its group; the means of what lies below
  /// and above its mean (for 1 bit); or the ends of the steps that meet its values best.
  enum class Ends : std::uint8_t { extremes, half_means, fitted };
  Ends ends = Ends::extremes;

  /// What is added to that (GEAR): `outliers` values of each line, and a product of rank kRank. Behind the codes lie
  /// the outliers of all lines, bf16, then their positions within the line; the factors' scales, bf16, and the factors,
  /// int8: [rank][lines], then [rank][positions].
  static constexpr std::size_t kRank = 2;
  std::size_t outliers = 0;
  bool low_rank = false;
  constexpr std::size_t rank() const { return low_rank ? kRank : 0; }

  /// Values of a line, and where one lies in the tiles.
  constexpr std::size_t positions() const { return 16 * columns; }
  constexpr std::size_t index(std::size_t line, std::size_t position) const {
    return line / 2 * pair_stride + position / 16 * column_stride + position % 16 * 2 + line % 2;
  }

  static constexpr std::size_t kUnitBytes = 64;
  constexpr std::size_t groups() const { return (columns + group - 1) / group; }
  constexpr std::size_t unit_pairs() const { return 16 / bits; }
  constexpr std::size_t column_bytes() const { return (depth / 2 + unit_pairs() - 1) / unit_pairs() * kUnitBytes; }
  /// Of one group's scales and least values.
  constexpr std::size_t head_bytes() const { return depth * 4; }
  constexpr std::size_t column_offset(std::size_t column) const {
    return groups() * head_bytes() + column * column_bytes();
  }
  constexpr std::size_t outlier_values() const { return column_offset(columns); }
  constexpr std::size_t outlier_places() const { return outlier_values() + depth * outliers * 2; }
  constexpr std::size_t place_bytes() const { return positions() <= 256 ? 1 : 2; }
  constexpr std::size_t place(const std::byte* at) const {
    return static_cast<std::size_t>(at[0]) | (place_bytes() == 2 ? static_cast<std::size_t>(at[1]) << 8 : 0);
  }
  constexpr std::size_t factor_scales() const {
    return (outlier_places() + depth * outliers * place_bytes() + 1) / 2 * 2;
  }
  constexpr std::size_t factors() const { return factor_scales() + 2 * rank() * 2; }
  constexpr std::size_t bytes() const {
    return (factors() + rank() * (depth + positions()) + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
  }
};

}  // namespace snug
