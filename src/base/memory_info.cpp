#include "base/memory_info.hpp"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>

namespace snug {

namespace {

/// "KEY:   123 kB" of /proc/meminfo and /proc/self/status.
Bytes read_kilobytes(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) {
      std::istringstream rest(line.substr(key.size() + 1));
      Bytes value = 0;
      rest >> value;
      return value * kKiB;
    }
  return 0;
}

}  // namespace

std::optional<Bytes> read_number(const std::string& path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word)) return std::nullopt;
  Bytes value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

std::string system_root() {
  const char* root = std::getenv("SNUG_SYSTEM_ROOT");
  return root ? root : "";
}

std::vector<Group> groups_of_process(const std::string& root, const std::string& controller) {
  std::vector<Group> result;
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find("," + controller + ",") == std::string::npos) continue;
    const std::string base = root + "/sys/fs/cgroup" + (v2 ? "" : "/" + controllers);
    // Within a container the path may be that of the host: the root of the hierarchy is looked at in any case.
    for (std::string path = line.substr(second + 1); !path.empty() && path != "/"; path.resize(path.rfind('/')))
      result.push_back({base + path, v2});
    result.push_back({base, v2});
  }
  return result;
}

MemoryInfo memory_info(const std::string& root) {
  MemoryInfo info;
  info.physical = read_kilobytes(root + "/proc/meminfo", "MemTotal");
  info.available = read_kilobytes(root + "/proc/meminfo", "MemAvailable");
  info.limit = info.physical;
  for (const Group& group : groups_of_process(root, "memory")) {
    auto limit = read_number(group.directory + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    // Beyond memory.high a process is not killed but slowed down until it hardly moves.
    if (const auto high = group.v2 ? read_number(group.directory + "/memory.high") : std::nullopt)
      limit = std::min(limit.value_or(*high), *high);
    if (!limit || *limit >= info.limit) continue;
    info.limit = *limit;
    info.group = group;
    info.charged = read_number(group.directory + (group.v2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  }
  return info;
}

Bytes default_budget(const MemoryInfo& info) {
  const Bytes left = info.limit > info.charged ? info.limit - info.charged : 0;
  return std::min(left, info.available) / 10 * 9;
}

Bytes peak_resident_bytes() {
  return read_kilobytes("/proc/self/status", "VmHWM");
}
Bytes resident_bytes() {
  return read_kilobytes("/proc/self/status", "VmRSS");
}
void release_free_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

unsigned cgroup_cpu_quota(const std::string& root) {
  double least = 0;
  const auto take = [&least](double quota, double period) {
    if (quota > 0 && period > 0 && (least == 0 || quota / period < least)) least = quota / period;
  };
  for (const Group& group : groups_of_process(root, "cpu")) {
    if (group.v2) {
      std::ifstream in(group.directory + "/cpu.max");
      double quota = 0, period = 0;
      if (in >> quota >> period) take(quota, period);
    } else {
      take(static_cast<double>(read_number(group.directory + "/cpu.cfs_quota_us").value_or(0)),
           static_cast<double>(read_number(group.directory + "/cpu.cfs_period_us").value_or(0)));
    }
  }
  return static_cast<unsigned>(std::ceil(least));
}

}  // namespace snug
