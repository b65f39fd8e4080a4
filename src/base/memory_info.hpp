#pragma once
/// What memory this process may use, and uses: physical RAM, cgroup limits (v1 and v2), resident set.

#include <optional>
#include <string>
#include <vector>

#include "base/units.hpp"

namespace snug {

/// A cgroup's directory, of the v2 hierarchy or of a v1 controller.
struct Group {
  std::string directory;
  bool v2 = false;
  bool exists() const { return !directory.empty(); }
};

struct MemoryInfo {
  Bytes physical = 0;   ///< RAM of the machine
  Bytes available = 0;  ///< MemAvailable
  Bytes limit = 0;      ///< least limit of the process's memory cgroup and its ancestors; `physical` when there is none
  Bytes charged = 0;    ///< what that cgroup is charged already
  Group group;          ///< that cgroup
};

/// First word of a small file in /proc or /sys as a number; "max" and anything else is nothing.
std::optional<Bytes> read_number(const std::string& path);

/// Where /proc and /sys are looked for: SNUG_SYSTEM_ROOT, with which tests run the binary on a system of their own.
std::string system_root();

MemoryInfo memory_info(const std::string& root = system_root());

/// The process's groups of a controller ("memory"), from the innermost outwards.
std::vector<Group> groups_of_process(const std::string& root, const std::string& controller);

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
