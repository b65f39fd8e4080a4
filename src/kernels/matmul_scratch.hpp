#pragma once

#include <cstddef>

namespace snug {

/// Unpacked weights that products keep in the L2 cache (shared with the rows of x that are multiplied with them).
inline constexpr std::size_t kPanelBytes = 512 * 1024;
/// Bytes of an unpacked brick of 16 x 32 values at most: values, two scales, two minimums.
inline constexpr std::size_t kPanelBrickBytes = 12 * 64;

}  // namespace snug
