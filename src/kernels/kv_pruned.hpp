#pragma once
/// Keys of which some channels are left out (ThinK): a head's page of 64 tokens holds a bit for each channel, set when
/// it stays; bf16 means of those that do not; then, per tile of 16 tokens, what stays, line by line: both channels of a
/// pair (2 p, 2 p + 1) in turn as in a tile, else the one that stays.

#include <cstddef>

#include "kernels/kv_tile.hpp"

namespace snug {

struct KvPruned {
  std::size_t dim, kept;  ///< channels

  constexpr std::size_t means() const { return (dim / 8 + 1) / 2 * 2; }
  constexpr std::size_t lines() const { return means() + (dim - kept) * 2; }
  constexpr std::size_t bytes() const { return lines() + kept * 64 * 2; }
};

}  // namespace snug
