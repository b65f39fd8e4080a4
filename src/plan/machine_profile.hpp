#pragma once
/// What this machine does at most: predictions rest on it. What stays is measured once and remembered; memory and disk,
/// which change from minute to minute where others share them, are measured each time.

#include <map>
#include <string>

#include "base/thread_pool.hpp"
#include "base/units.hpp"

namespace snug {

/// What streaming asks the disk for at once, about.
inline constexpr std::size_t kStreamBlock = 256 * kKiB;

struct MachineProfile {
  double memory_bytes_s = 0;                   ///< all threads reading
  double decode_bytes_s = 0;                   ///< all threads multiplying one row with weights
  double int8_ops_s = 0;                       ///< multiply and add count as two
  std::map<std::size_t, double> disk_bytes_s;  ///< of the disk under a file, by block size
};

/// The profile remembered in XDG_CACHE_HOME/snug/machine.json (or ~/.cache) for this many threads and this disk, else
/// measured in about a second and remembered; how fast products and the disk are now, in 0.2 s. `path`: the file that
/// weights will be read from. Needs `memory` bytes for a moment. `again`: measures everything.
MachineProfile machine_profile(ThreadPool& pool, const std::string& path, Bytes memory, bool again);

}  // namespace snug
