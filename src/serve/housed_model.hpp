#pragma once
/// One model of a ModelHouse, while it is loaded.

#include "serve/api.hpp"

namespace snug {

struct HousedModel {
  HousedModel(std::unique_ptr<Model> loaded, Ledger& ledger, const SchedulerOptions& options, ApiOptions api)
      : model(std::move(loaded)),
        scheduler(*model, ledger, options),
        served(*model, ledger, scheduler, std::move(api)) {}
  /// Requests fail from now on. Not to be called by who has the turn: the scheduler's thread may wait for it.
  void stop() {
    served.stop();  // grammars that are compiled hold answers, which need the scheduler
    scheduler.stop();
  }

  std::unique_ptr<Model> model;
  Scheduler scheduler;
  ServedModel served;

  // Of whoever has the turn:
  bool awake = false;
};

}  // namespace snug
