#pragma once
/// How fast the disk under a file reads when asked as streaming asks it: past the page cache, many reads in flight.

#include <string>

#include "base/units.hpp"

namespace snug {

/// Bytes per second of reads of `block` bytes (or all that a small file has) in order, from anywhere in the file,
/// `seconds` long, into each part of `memory` bytes in turn (at least as many as are in flight): what does not stay in
/// the processor's caches takes longer to arrive. Throws IoError.
double measure_disk_read(const std::string& path, std::size_t block, double seconds = 0.3, Bytes memory = 0);

}  // namespace snug
