#pragma once
/// Coupled channels: `width` neighbouring channels of a token share a code of 8 bits, which chooses one of 256
/// centroids.
///
/// Codes of a page lie [group][64 tokens], centroids [group][256][width] in bf16.

#include <cstddef>

namespace snug {

inline constexpr std::size_t kCentroids = 256;

struct KvCentroids {
  std::size_t groups, width;  ///< width 4 or 8
  constexpr std::size_t dim() const { return groups * width; }
  constexpr std::size_t page_bytes() const { return groups * 64; }
};

}  // namespace snug
