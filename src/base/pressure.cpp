#include "base/pressure.hpp"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iterator>

namespace snug {

namespace {

constexpr int kInterval = 500;           // milliseconds between two looks
constexpr double kStalledShare = 0.15;   // of the time, that is pressure,
constexpr double kStalledPercent = 10;   // or of the last ten seconds, when no total tells more
constexpr Bytes kNearLimit = 16 * kMiB;  // or less than this left in the group, when it was refused memory,
constexpr Bytes kNearShare = 16;         // or this part of a small group

std::string read_small_file(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Asks to be woken when some task stalls for kStalledShare of a window: a second; unprivileged, two.
Descriptor arm_trigger(const std::string& path) {
  for (const std::string_view order : {"some 150000 1000000", "some 300000 2000000"}) {
    Descriptor file(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (file.open() && write(file.get(), order.data(), order.size() + 1) > 0) return file;
  }
  return {};
}

/// What the group is charged beside page cache, which the kernel drops when others need memory.
Bytes kept_bytes(const MemoryInfo& info) {
  if (!info.group.exists()) return 0;
  const std::string stat = read_small_file(info.group.directory + "/memory.stat"), all = info.group.v2 ? "" : "total_";
  const double cache =
      number_after(stat, all + "inactive_file").value_or(0) + number_after(stat, all + "active_file").value_or(0);
  const auto charged = static_cast<double>(info.charged);
  return static_cast<Bytes>(std::max(0.0, charged - std::min(cache, charged)));
}

}  // namespace

std::optional<double> number_after(std::string_view text, std::string_view key) {
  constexpr std::string_view kSpace = " \t\n", kBetween = " \t=";
  for (std::size_t at = text.find(key); at != std::string_view::npos; at = text.find(key, at + 1)) {
    const std::size_t end = at + key.size();
    if (at > 0 && kSpace.find(text[at - 1]) == std::string_view::npos) continue;
    if (end >= text.size() || kBetween.find(text[end]) == std::string_view::npos) continue;
    double value = 0;
    const auto result = std::from_chars(text.data() + end + 1, text.data() + text.size(), value);
    if (result.ec == std::errc() && value >= 0 && value < 1e18) return value;
    return std::nullopt;
  }
  return std::nullopt;
}

PressureWatch::PressureWatch(std::string root) : root_(std::move(root)), stall_file_(root_ + "/proc/pressure/memory") {
  for (const Group& group : groups_of_process(root_, "memory")) {
    const std::string file = group.directory + "/memory.pressure";
    if (!group.v2 || !std::ifstream(file)) continue;
    stall_file_ = file;
    own_stalls_ = true;
    break;
  }
  if (root_.empty()) trigger_ = arm_trigger(stall_file_);  // an order would overwrite a file that is not the kernel's
}

bool PressureWatch::wait(int stop) {
  std::array<pollfd, 2> files{{{stop, POLLIN, 0}, {trigger_.get(), POLLPRI, 0}}};
  if (poll(files.data(), files.size(), kInterval) < 0) return true;  // a signal
  if (files[1].revents & (POLLERR | POLLNVAL))
    trigger_ = Descriptor();  // the group has gone
  else if (files[1].revents & POLLPRI)
    triggered_ = true;
  return files[0].revents == 0;
}

/// From how the total of microseconds grew; a trigger tells of stalls that are shorter than the time between two looks.
bool PressureWatch::stalled(Time now) {
  const std::string text = read_small_file(stall_file_);
  const bool reported = std::exchange(triggered_, false);
  if (!text.starts_with("some ")) return false;
  const auto total = number_after(text, "total");
  if (!total) return number_after(text, "avg10").value_or(0) >= kStalledPercent;
  const double passed = std::chrono::duration<double, std::micro>(now - stall_time_).count();
  const bool grew = stall_total_ && *total - *stall_total_ >= kStalledShare * passed;
  stall_total_ = total;
  stall_time_ = now;
  return grew || reported;
}

/// Whether the group ran into its limit since the last look.
bool PressureWatch::refused(const Group& group) {
  double count = 0;
  if (group.exists() && group.v2) {
    const std::string events = read_small_file(group.directory + "/memory.events");
    count = number_after(events, "high").value_or(0) + number_after(events, "max").value_or(0);
  } else if (group.exists()) {
    count = static_cast<double>(read_number(group.directory + "/memory.failcnt").value_or(0));
  }
  const bool grew = group.directory == counted_group_ && count > refusals_;
  counted_group_ = group.directory;
  refusals_ = count;
  return grew;
}

PressureReading PressureWatch::look(Time now) {
  const MemoryInfo info = memory_info(root_);
  const Bytes kept = kept_bytes(info), left = info.limit > kept ? info.limit - kept : 0;
  PressureReading reading{.room = std::min(left, info.available), .limit = info.limit};
  // Stalls of a machine that has memory left are those of some group that ran into its own limit.
  const bool stalls = stalled(now) && (own_stalls_ || info.available < info.physical / 8);
  // A group full of page cache is refused memory all the time, which costs nobody anything.
  const Bytes near = std::min(kNearLimit, info.limit / kNearShare);
  if (info.group.exists()) reading.most = info.limit - near;
  const bool limit_met = refused(info.group) && left < near;
  reading.pressure = stalls || limit_met || (info.group.exists() && left < near / 2);
  return reading;
}

}  // namespace snug
