#pragma once
/// Places buffers whose lifetimes are known in one arena, so that those that are never alive together share memory
/// (arXiv 2001.03288, "Efficient Memory Management for Deep Neural Net Inference").

#include <functional>
#include <span>
#include <vector>

#include "base/units.hpp"

namespace snug {

/// Written first in step `first`, read last in step `last` (inclusive, first <= last).
struct ArenaBuffer {
  Bytes size = 0;
  std::uint32_t first = 0, last = 0;

  bool meets(const ArenaBuffer& other) const { return first <= other.last && other.first <= last; }
};

struct ArenaPlan {
  std::vector<Bytes> offsets;  ///< of each buffer, multiples of kArenaAlignment
  Bytes total = 0;
};

inline constexpr Bytes kArenaAlignment = 64;

/// The largest sum of sizes (each rounded up to the alignment) that are alive in one step: no plan needs less.
Bytes arena_lower_bound(std::span<const ArenaBuffer> buffers);

/// The largest buffer first, each into the smallest gap that holds it among those it meets.
ArenaPlan plan_by_size(std::span<const ArenaBuffer> buffers);
/// The step with the most bytes alive first, its buffers by size, placed in the same way.
ArenaPlan plan_by_breadth(std::span<const ArenaBuffer> buffers);
/// Buffers take turns in objects that begin and end together ("greedy by size, improved").
ArenaPlan plan_shared_objects(std::span<const ArenaBuffer> buffers);

/// The one of these that needs least. Throws Error when sizes overflow.
ArenaPlan plan_arena(std::span<const ArenaBuffer> buffers);

/// Any way to place buffers.
using ArenaPlanner = std::function<ArenaPlan(std::span<const ArenaBuffer>)>;

}  // namespace snug
