#pragma once

#include <algorithm>
#include <cstddef>

namespace snug {

/// Unpacked weights that products keep in the L2 cache (shared with the rows of x that are multiplied with them).
inline constexpr std::size_t kPanelBytes = 512 * 1024;
/// Bytes of an unpacked brick of 16 x 32 values at most: values, two scales, two minimums.
inline constexpr std::size_t kPanelBrickBytes = 12 * 64;

/// Rows of x that are multiplied together with panels, and at most straight from the packed weights.
inline constexpr std::size_t kTileInputs = 6, kDirectInputs = 8;
/// Rows whose fine planes are multiplied together with panels: many share the bricks of outliers.
inline constexpr std::size_t kFineInputs = 8 * kTileInputs;

inline constexpr std::size_t panel_bytes(std::size_t cols) {
  return std::max(kPanelBytes, 2 * (cols / 32 * kPanelBrickBytes));
}
/// What the accumulators of a tile of rows and of their fine planes start from.
inline constexpr std::size_t starts_bytes(std::size_t cols) {
  return std::max(kTileInputs, kDirectInputs) * (cols / 16 + cols / 128 + 2) * 4;
}
/// Fine planes of a block of rows: which rows have each brick, what their accumulators start from.
inline constexpr std::size_t fine_rows_bytes(std::size_t cols) {
  return cols / 32 * 8 + kFineInputs * (cols / 256 + 1) * 2 * 4;
}
/// What accumulators start from and which rows have a brick in their fine plane, for one tile without a panel.
inline constexpr std::size_t few_rows_bytes(std::size_t cols) {
  return starts_bytes(cols) + cols / 32;
}

}  // namespace snug
