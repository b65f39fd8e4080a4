#include "base/pressure_policy.hpp"

#include <algorithm>

namespace snug {

namespace {

constexpr std::chrono::seconds kBetweenCuts(1), kBetweenRaises(5), kCalm(30);
constexpr Bytes kStep = 8;

}  // namespace

Bytes PressurePolicy::next(Time now, const PressureReading& reading, const Budget& budget) {
  const auto passed = [now](const std::optional<Time>& since, auto time) { return !since || now - *since >= time; };
  if (reading.pressure) last_pressure_ = now;
  const Bytes ceiling = std::min(budget.ceiling, reading.most);
  Bytes wanted = std::min(budget.now, ceiling);
  if (reading.pressure) {
    const Bytes used = std::min(wanted, budget.used);
    wanted = used - used / kStep;
  }
  wanted = std::min(budget.now, std::max(wanted, budget.smallest));
  if (wanted < budget.now) {
    if (!passed(last_change_, kBetweenCuts)) return budget.now;
  } else if (budget.now < ceiling) {
    // What is raised is soon used, and with what else is used it must not run into a limit.
    wanted = std::min(ceiling, budget.now + std::max<Bytes>(budget.now / kStep, kMiB));
    const Bytes more = wanted > budget.used ? wanted - budget.used : 0;
    if (more > reading.room - reading.room / kStep || !passed(last_pressure_, kCalm) ||
        !passed(last_change_, kBetweenRaises))
      return budget.now;
  } else {
    return budget.now;
  }
  last_change_ = now;
  return wanted;
}

}  // namespace snug
