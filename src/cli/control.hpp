#pragma once
/// Orders to a running process, over a socket that only its user may open: `snug resize`.

#include <memory>
#include <string>

#include "cli/budget_keeper.hpp"

namespace snug {

/// Listens until it is destroyed, in a thread of its own. A process without a place for its socket just does not
/// listen.
class ControlServer {
public:
  ControlServer(BudgetKeeper& budget, const Ledger& ledger);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Sends one line to the process `pid` and returns its answer. Throws IoError when it does not listen.
std::string send_control(long pid, const std::string& line);

}  // namespace snug
