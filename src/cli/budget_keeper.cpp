#include "cli/budget_keeper.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "base/descriptor.hpp"
#include "base/log.hpp"
#include "base/memory_info.hpp"
#include "base/pressure_policy.hpp"
#include "cli/engine.hpp"

namespace snug {

struct BudgetKeeper::State {
  State(std::function<void(Bytes)> r, Ledger& l, Options o)
      : resize(std::move(r)), ledger(l), options(std::move(o)), ceiling(l.report().limit) {
    // Memory that the user granted is never refused for the sake of others: an answer would end there. Asked after
    // everybody who can give something back, and within forward(), so that it must not wait for a resize.
    holder = ledger.add_holder({[] { return 2.0; }, [this](Bytes wanted) { return raise(wanted); }});
  }

  std::function<void(Bytes)> resize;
  Ledger& ledger;
  Options options;
  std::atomic<Bytes> ceiling;
  std::shared_ptr<void> holder;

  mutable std::mutex mutex;  ///< of what follows, and held while the model is resized
  Counts counts;
  std::function<void(Bytes before, Bytes now, bool pressure)> told;
  PressurePolicy policy;
  Bytes limit = memory_info().limit;

  Descriptor stop;
  std::thread thread;

  Bytes raise(Bytes wanted) {
    const LedgerReport report = ledger.report();
    const Bytes needed = std::min(ceiling.load(), report.used + wanted);
    if (needed > report.limit) ledger.set_limit(needed);
    return 0;
  }

  void follow_limit(Bytes now) {
    if (now == limit || now == 0) return;
    limit = now;
    if (options.ceiling_for) ceiling = options.ceiling_for(limit);
  }

  void follow(PressureWatch::Time now, const PressureReading& reading) {
    const std::lock_guard lock(mutex);
    follow_limit(reading.limit);
    const LedgerReport report = ledger.report();
    const Bytes budget = policy.next(now, reading, {report.limit, report.used, ceiling, options.smallest});
    if (budget == report.limit) return;
    try {
      resize(budget);
    } catch (const std::exception& e) {
      return log(LogLevel::info, "the budget stays as it is: {}", e.what());
    }
    ++(budget < report.limit ? counts.shrunk : counts.grown);
    if (told) told(report.limit, budget, true);
    log(LogLevel::info, "{} is used, and the budget is now {}", format_bytes(report.used), format_bytes(budget));
  }

  void watch() {
    PressureWatch pressure;
    do {
      const auto now = std::chrono::steady_clock::now();
      follow(now, pressure.look(now));
    } while (pressure.wait(stop.get()));
  }
};

BudgetKeeper::BudgetKeeper(std::function<void(Bytes)> resize, Ledger& ledger, Options options)
    : state_(std::make_unique<State>(std::move(resize), ledger, std::move(options))) {
  if (!state_->options.follow_pressure) return;
  state_->stop = Descriptor(eventfd(0, EFD_CLOEXEC));
  if (state_->stop.open()) state_->thread = std::thread([state = state_.get()] { state->watch(); });
}

BudgetKeeper::~BudgetKeeper() {
  if (!state_->thread.joinable()) return;
  eventfd_write(state_->stop.get(), 1);
  state_->thread.join();
}

void BudgetKeeper::set(Bytes budget) {
  const std::lock_guard lock(state_->mutex);
  const Bytes before = state_->ledger.report().limit;
  state_->resize(budget);
  state_->ceiling = budget;
  if (state_->told && budget != before) state_->told(before, budget, false);
  state_->options.ceiling_for = nullptr;
}

void BudgetKeeper::on_change(std::function<void(Bytes, Bytes, bool)> told) {
  const std::lock_guard lock(state_->mutex);
  state_->told = std::move(told);
}

BudgetKeeper::Counts BudgetKeeper::counts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->counts;
}

std::unique_lock<std::mutex> BudgetKeeper::hold() const {
  return std::unique_lock(state_->mutex);
}

std::unique_ptr<BudgetKeeper> keep_budget(const Engine& engine, const EngineOptions& options, std::size_t context,
                                          bool follow_pressure, const MemoryInfo& before) {
  if (context == 0) context = std::min<std::size_t>(engine.model->config().trained_context, kUsualContext);
  BudgetKeeper::Options keeper;
  keeper.follow_pressure = follow_pressure;
  keeper.smallest = engine.model->plan(engine.ledger->report().limit, context).smallest;
  keeper.ceiling_for = [engine_options = options, info = before](Bytes limit) mutable {
    info.limit = limit;
    return budget_of(engine_options, info);
  };
  return std::make_unique<BudgetKeeper>([model = engine.model.get()](Bytes b) { model->resize(b); }, *engine.ledger,
                                        std::move(keeper));
}

}  // namespace snug
