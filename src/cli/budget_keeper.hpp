#pragma once
/// The budget of a process that runs: what its user granted is the ceiling, and memory pressure lowers it for a while.

#include <functional>
#include <memory>
#include <mutex>

#include "base/ledger.hpp"
#include "model/model.hpp"

namespace snug {

class BudgetKeeper {
public:
  struct Options {
    bool follow_pressure = true;
    Bytes smallest = 0;  ///< pressure never lowers it further
    /// The ceiling when the limit of the process's memory changes; what the user sets ends that.
    std::function<Bytes(Bytes limit)> ceiling_for;
  };
  struct Counts {
    std::size_t shrunk = 0, grown = 0;
  };

  /// The ledger's limit is the first ceiling. Watches pressure until it is destroyed, in a thread of its own.
  /// `resize` changes it, and throws Error when it cannot.
  BudgetKeeper(std::function<void(Bytes)> resize, Ledger& ledger, Options options);
  ~BudgetKeeper();
  BudgetKeeper(const BudgetKeeper&) = delete;
  BudgetKeeper& operator=(const BudgetKeeper&) = delete;

  /// The user's order, and the ceiling from now on. Throws as `resize` does. Thread-safe.
  void set(Bytes budget);

  /// From now on `told` hears of every change, from any thread, and must not change the budget; empty: nobody does.
  void on_change(std::function<void(Bytes before, Bytes now, bool pressure)> told);

  /// How often pressure, or its end, changed the budget. Thread-safe.
  Counts counts() const;

  /// While it is held the budget stays: for work with the thread pool outside of the model. Thread-safe.
  [[nodiscard]] std::unique_lock<std::mutex> hold() const;

private:
  struct State;
  std::unique_ptr<State> state_;
};

struct Engine;
struct EngineOptions;
struct MemoryInfo;
/// For an engine and contexts of so many tokens (0: as the model was trained). `before`: the machine as it was when the
/// model was loaded; another limit gives the budget that it would have given then.
std::unique_ptr<BudgetKeeper> keep_budget(const Engine& engine, const EngineOptions& options, std::size_t context,
                                          bool follow_pressure, const MemoryInfo& before);

}  // namespace snug
