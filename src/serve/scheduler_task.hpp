#pragma once
/// Work beside requests that needs the model, or the sequences that are kept: embeddings, sessions that are saved.

#include <string>

#include "model/model.hpp"
#include "serve/prefix_store.hpp"

namespace snug {

/// Done in pieces on the scheduler's thread, one between two steps, the tasks one after the other.
class SchedulerTask {
public:
  virtual ~SchedulerTask() = default;
  /// One piece, of at most so many rows. Returns whether there is more to do. After OutOfBudget it is called again when
  /// there is more room; any other error is the end.
  virtual bool step(Model& model, PrefixStore& prefixes, std::size_t most_rows) = 0;
  /// Gives up the memory that it holds, to do the same again with less at a time. Returns false when there is none.
  virtual bool give_back() { return false; }
  /// It will not be done.
  virtual void fail(const std::string& why) = 0;
};

}  // namespace snug
