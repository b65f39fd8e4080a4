#pragma once
/// How a budget follows memory pressure: down in steps while there is pressure, up again when there was none for long.

#include <optional>

#include "base/pressure.hpp"

namespace snug {

class PressurePolicy {
public:
  using Time = PressureWatch::Time;

  struct Budget {
    Bytes now = 0, used = 0;
    Bytes ceiling = 0;   ///< what the user granted
    Bytes smallest = 0;  ///< less would not do
  };

  /// The budget that should hold from now on; `budget.now` when nothing should change. An eighth less under pressure
  /// (of what is used: only that gives memory back), never oftener than once in a second; an eighth more at a time,
  /// every five seconds, when there was no pressure for half a minute and there is room for more than that.
  Bytes next(Time now, const PressureReading& reading, const Budget& budget);

private:
  std::optional<Time> last_change_, last_pressure_;
};

}  // namespace snug
