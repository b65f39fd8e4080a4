#pragma once
/// Pages of keys or values as products of int8: coordinates of each token times what each dimension takes of them.

#include <cstddef>
#include <cstdint>

namespace snug {

/// Lines of `rank` integers (a multiple of 4) in [-127, 127], each with a factor. A value of the page is the product of
/// a row and a lane: of keys, rows are dimensions and lanes tokens; of values, rows are tokens and lanes dimensions.
struct KvLowRank {
  std::size_t rank = 0;
  const std::int8_t* rows = nullptr;       ///< [rows][rank]; as many as lines in the page (kv_lines.hpp)
  const float* row_scale = nullptr;        ///< [rows]
  const float* row_offset = nullptr;       ///< [rows], added; null: nothing
  const std::int32_t* row_sums = nullptr;  ///< [rows], of their integers
  const std::int8_t* lanes = nullptr;      ///< [vectors][rank / 4][16][4]
  const float* lane_scale = nullptr;       ///< [vectors][16]
  const float* lane_offset = nullptr;      ///< the same, added; null: nothing

  /// Where an integer of a lane lies.
  constexpr std::size_t lane_index(std::size_t lane, std::size_t r) const {
    return (lane / 16 * (rank / 4) + r / 4) * 64 + lane % 16 * 4 + r % 4;
  }
};

}  // namespace snug
