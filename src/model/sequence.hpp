#pragma once
/// The state of one token sequence: attention KV and, for hybrid models, recurrent state.

#include <cstddef>
#include <memory>
#include <vector>

#include "base/units.hpp"
#include "kv/kv_swap.hpp"

namespace snug {

class Sequence {
public:
  virtual ~Sequence() = default;
  virtual std::size_t length() const = 0;
  virtual std::size_t max_tokens() const = 0;
  /// Most rows of it that the next forward call may hold (beside Model::max_rows).
  virtual std::size_t most_rows() const = 0;
  /// Forgets the tokens from `length` on; returns the new length, which may be smaller (recurrent layers can only go
  /// back to the start of the last forward call or to 0, sliding-window layers at most max_rows tokens or to 0): the
  /// caller feeds the tokens in between again.
  virtual std::size_t truncate(std::size_t length) = 0;
  /// A sequence with the same tokens that goes on by itself. KV pages are shared until one of the two writes to them;
  /// recurrent state is copied. Throws OutOfBudget.
  virtual std::unique_ptr<Sequence> fork() const = 0;
  virtual Bytes memory_bytes() const = 0;
  /// Adds the pages of its KV cache that are in memory.
  virtual void add_pages(std::vector<HeldPage>& to) const = 0;

  /// Its KV leaves memory, by and by (Model::swap()). Until swap_in(), only fork(), truncate() and what asks without
  /// changing anything may be called. REQUIRES: Model::swap().
  virtual void swap_out() = 0;
  /// Begins to bring it back: when the transfer is done without an error and has been collected, it goes on as if
  /// nothing had happened. With an error it is lost. Throws OutOfBudget: nothing has changed then.
  virtual std::shared_ptr<const KvTransfer> swap_in() = 0;
  virtual bool swapped() const = 0;
};

}  // namespace snug
