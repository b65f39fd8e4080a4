#pragma once
/// What a scheduler that is not alone asks before it works.

#include <string>

#include "base/units.hpp"

namespace snug {

/// Of one scheduler among several that share the processor and the ledger: one of them works at a time, and whoever
/// does may touch what the others have (they wait). A null pointer to it means that there are no others.
class ComputeTurn {
public:
  virtual ~ComputeTurn() = default;
  /// Waits until the others do not work. `computes`: and until the model is ready for it, for which it may have to wait
  /// for the others' turns to end. Returns why it cannot be made ready; "": it is. end() must follow in any case.
  virtual std::string begin(bool computes) = 0;
  /// `more`: it would go on at once, if nobody else waits too long.
  virtual void end(bool more) = 0;
  /// Memory that the others would give up for this one. REQUIRES: between begin() and end().
  virtual Bytes others_bytes() const = 0;
};

}  // namespace snug
