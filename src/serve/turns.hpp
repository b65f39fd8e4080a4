#pragma once
/// Who works on the processor, among several that would: one at a time, each for as long as it has more to do or until
/// its turn has lasted long enough for others to be due, in the order in which they came. A change may be expensive, so
/// turns are as long as it is worth.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>

namespace snug {

/// Thread-safe.
class Turns {
public:
  using Clock = std::chrono::steady_clock;

  /// Waits for the turn of `who`. A visitor (`computes` false) comes between two steps of whoever has a turn, and does
  /// not end it. end() must follow.
  void begin(std::size_t who, bool computes);
  /// `more`: begin() follows at once.
  void end(bool more);
  /// How long a turn lasts when others wait.
  void set_length(Clock::duration length);
  /// Whether it has a turn that goes on, or waits for one.
  bool wants(std::size_t who) const;

private:
  struct Waiting {
    std::size_t who;
    bool computes;
  };
  /// Whether that one is next.
  bool next(const Waiting& waiting) const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<const Waiting*> waiting_;
  std::optional<std::size_t> turn_;  ///< whose
  bool busy_ = false;                ///< somebody is at work:
  Waiting at_work_{};
  Clock::time_point began_{};
  Clock::duration length_{};
};

}  // namespace snug
