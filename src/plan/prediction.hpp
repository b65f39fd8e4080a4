#pragma once
/// How fast a model will run in a budget: a roofline over what the plan moves and what the machine does.

#include "model/model.hpp"
#include "plan/machine_profile.hpp"

namespace snug {

struct Prediction {
  double decode_tok_s = 0;                      ///< one sequence, context half full
  double prefill_tok_s = 0;                     ///< a prompt of max_rows tokens
  double disk_seconds = 0, memory_seconds = 0;  ///< of a decode step; they may overlap
};

Prediction predict(const MemoryPlan& plan, const MachineProfile& machine);

}  // namespace snug
