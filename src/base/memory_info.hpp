#pragma once
/// What memory this process may use, and uses: physical RAM, cgroup limits (v1 and v2), resident set.

#include <string>

#include "base/units.hpp"

namespace snug {

struct MemoryInfo {
  Bytes physical = 0;   ///< RAM of the machine
  Bytes available = 0;  ///< MemAvailable
  Bytes limit = 0;      ///< least limit of the process's memory cgroup and its ancestors; `physical` when there is none
  Bytes charged = 0;    ///< what that cgroup is charged already
};

/// `root` is where /proc and /sys are looked for (tests).
MemoryInfo memory_info(const std::string& root = "");

/// 90% of what is free: min(limit - charged, available).
Bytes default_budget(const MemoryInfo& info);

/// Largest resident set so far / resident set now.
Bytes peak_resident_bytes();
Bytes resident_bytes();
/// Gives what the heap keeps for later back to the system.
void release_free_memory();

/// CPUs that the process's cgroup grants per second, rounded up; 0: no quota.
unsigned cgroup_cpu_quota(const std::string& root = "");

}  // namespace snug
