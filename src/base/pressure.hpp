#pragma once
/// Whether memory is short, as the kernel tells it: pressure stall information (PSI) of the process's cgroup or of the
/// machine, and what the cgroup that limits the process was refused. Files that are missing or hold anything else than
/// expected tell of no pressure.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/descriptor.hpp"
#include "base/memory_info.hpp"

namespace snug {

struct PressureReading {
  bool pressure = false;
  Bytes room = 0;          ///< what could be taken without reclaiming anybody's memory but page cache
  Bytes limit = 0;         ///< MemoryInfo::limit
  Bytes most = ~Bytes{0};  ///< with a larger budget the process might be killed by its group's limit
};

/// The number after the first word `key`, as in "key 12" or "key=1.5"; nothing when there is none or it is negative.
std::optional<double> number_after(std::string_view text, std::string_view key);

/// For one thread.
class PressureWatch {
public:
  using Time = std::chrono::steady_clock::time_point;

  /// `root` as in memory_info().
  explicit PressureWatch(std::string root = system_root());

  /// Waits for half a second, less when the kernel reports a stall. False: `stop` became readable.
  bool wait(int stop);

  /// Pressure since the last look, at the time `now`.
  PressureReading look(Time now);

private:
  bool stalled(Time now);
  bool refused(const Group& group);

  std::string root_, stall_file_, counted_group_;
  bool own_stalls_ = false;  ///< `stall_file_` is the group's, not the machine's
  Descriptor trigger_;
  bool triggered_ = false;
  std::optional<double> stall_total_;
  Time stall_time_{};
  double refusals_ = 0;
};

}  // namespace snug
