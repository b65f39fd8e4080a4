#pragma once
/// Many stretches of files, each read once and used as it comes: as fast as the disk, if using it is no slower.

#include <functional>
#include <span>

#include "base/file.hpp"
#include "base/ledger.hpp"
#include "base/thread_pool.hpp"

namespace snug {

/// Ranges that are read at once should be about this long.
inline constexpr std::size_t kBulkBytes = 512 << 10;

/// Reads `ranges`, many at a time, and calls `take(index, bytes)` with each on one of the pool's workers, in any order.
/// What is read goes through `scratch`, aligned for direct reads, or, where that holds too few of the ranges,
/// through memory of the ledger, as far as some is free (two ranges' need none). Throws IoError, and what `take`
/// throws.
void read_in_bulk(Ledger& ledger, ThreadPool& pool, std::span<std::byte> scratch, std::span<const FileRange> ranges,
                  const std::function<void(std::size_t index, std::span<const std::byte> bytes)>& take);

}  // namespace snug
