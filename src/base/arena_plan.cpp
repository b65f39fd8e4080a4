#include "base/arena_plan.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <numeric>

namespace snug {

namespace {

Bytes aligned(Bytes size) {
  return checked_add(size, kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

/// Bytes alive in each step.
std::vector<Bytes> breadths(std::span<const ArenaBuffer> buffers) {
  std::vector<Bytes> result;
  for (const ArenaBuffer& b : buffers) {
    assert(b.first <= b.last);
    if (result.size() <= b.last) result.resize(b.last + std::size_t{1});
    for (std::size_t step = b.first; step <= b.last; ++step) result[step] = checked_add(result[step], aligned(b.size));
  }
  return result;
}

/// Indices of buffers, the largest first.
std::vector<std::size_t> by_size(std::span<const ArenaBuffer> buffers) {
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return buffers[a].size > buffers[b].size; });
  return order;
}

/// Places buffers in an order.
class Placer {
public:
  explicit Placer(std::span<const ArenaBuffer> buffers)
      : buffers_(buffers), plan_{std::vector<Bytes>(buffers.size()), 0}, placed_(buffers.size()) {}

  void place(std::size_t index) {
    const Bytes size = aligned(buffers_[index].size);
    if (placed_[index] || size == 0) return;
    Bytes best = 0, smallest = std::numeric_limits<Bytes>::max(), end = 0;
    bool found = false;
    for (const std::size_t other : order_) {
      if (!buffers_[other].meets(buffers_[index])) continue;
      const Bytes at = plan_.offsets[other];
      if (at >= end && at - end >= size && at - end < smallest) {
        best = end;
        smallest = at - end;
        found = true;
      }
      end = std::max(end, at + aligned(buffers_[other].size));
    }
    if (!found) best = end;
    plan_.offsets[index] = best;
    plan_.total = std::max(plan_.total, checked_add(best, size));
    placed_[index] = true;
    const auto behind = std::upper_bound(order_.begin(), order_.end(), best,
                                         [&](Bytes at, std::size_t other) { return at < plan_.offsets[other]; });
    order_.insert(behind, index);
  }
  ArenaPlan take() { return std::move(plan_); }

private:
  std::span<const ArenaBuffer> buffers_;
  ArenaPlan plan_;
  std::vector<bool> placed_;
  std::vector<std::size_t> order_;  ///< what is placed, by offset
};

/// What takes turns in the same memory.
struct SharedObject {
  Bytes size = 0;
  std::vector<std::size_t> users;
};

constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

/// Steps for which the object would lie idle right before or after `b`; kNever: it is in use.
std::size_t idle_steps(std::span<const ArenaBuffer> buffers, const SharedObject& object, const ArenaBuffer& b) {
  std::size_t least = kNever - 1;
  for (const std::size_t user : object.users) {
    const ArenaBuffer& u = buffers[user];
    if (u.meets(b)) return kNever;
    least = std::min<std::size_t>(least, u.last < b.first ? b.first - u.last : u.first - b.last);
  }
  return least;
}

/// The i-th largest size in any one step, for each i: no sharing of objects can do with less.
std::vector<Bytes> positional_maximums(std::span<const ArenaBuffer> buffers) {
  std::vector<Bytes> result;
  const std::vector<std::size_t> order = by_size(buffers);
  for (std::uint32_t step = 0, steps = static_cast<std::uint32_t>(breadths(buffers).size()); step < steps; ++step) {
    std::size_t i = 0;
    for (const std::size_t index : order) {
      if (!buffers[index].meets({0, step, step})) continue;
      if (i == result.size()) result.push_back(0);
      result[i] = std::max(result[i], buffers[index].size);
      ++i;
    }
  }
  return result;
}

}  // namespace

Bytes arena_lower_bound(std::span<const ArenaBuffer> buffers) {
  const std::vector<Bytes> all = breadths(buffers);
  return all.empty() ? 0 : *std::max_element(all.begin(), all.end());
}

ArenaPlan plan_by_size(std::span<const ArenaBuffer> buffers) {
  Placer placer(buffers);
  for (const std::size_t index : by_size(buffers)) placer.place(index);
  return placer.take();
}

ArenaPlan plan_by_breadth(std::span<const ArenaBuffer> buffers) {
  const std::vector<Bytes> breadth = breadths(buffers);
  std::vector<std::uint32_t> steps(breadth.size());
  std::iota(steps.begin(), steps.end(), 0u);
  std::stable_sort(steps.begin(), steps.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return breadth[a] > breadth[b]; });
  const std::vector<std::size_t> order = by_size(buffers);
  Placer placer(buffers);
  for (const std::uint32_t step : steps)
    for (const std::size_t index : order)
      if (buffers[index].meets({0, step, step})) placer.place(index);
  return placer.take();
}

ArenaPlan plan_shared_objects(std::span<const ArenaBuffer> buffers) {
  // Stages by positional maximum: sizes equal to one, sizes below it and above the next, and so on.
  const std::vector<Bytes> maximums = positional_maximums(buffers);
  const auto stage = [&](std::size_t index) {
    std::size_t s = 0;
    for (const Bytes m : maximums) s += (buffers[index].size <= m) + (buffers[index].size < m);
    return s;
  };
  std::vector<SharedObject> objects;
  std::vector<std::size_t> left = by_size(buffers);
  while (!left.empty()) {
    // Of the stage's buffers and all objects, the pair that leaves the object idle for the shortest time.
    std::size_t buffer = 0, object = kNever, least = kNever;
    for (std::size_t i = 0; i < left.size() && stage(left[i]) == stage(left[0]); ++i)
      for (std::size_t o = 0; o < objects.size(); ++o)
        if (const std::size_t idle = idle_steps(buffers, objects[o], buffers[left[i]]); idle < least)
          buffer = i, object = o, least = idle;
    if (object == kNever) object = objects.size(), objects.emplace_back();
    objects[object].size = std::max(objects[object].size, aligned(buffers[left[buffer]].size));
    objects[object].users.push_back(left[buffer]);
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(buffer));
  }
  ArenaPlan plan{std::vector<Bytes>(buffers.size()), 0};
  for (const SharedObject& o : objects) {
    for (const std::size_t user : o.users) plan.offsets[user] = plan.total;
    plan.total = checked_add(plan.total, o.size);
  }
  return plan;
}

ArenaPlan plan_arena(std::span<const ArenaBuffer> buffers) {
  ArenaPlan best = plan_by_size(buffers);
  for (const auto plan : {plan_by_breadth, plan_shared_objects}) {
    ArenaPlan other = plan(buffers);
    if (other.total < best.total) best = std::move(other);
  }
  return best;
}

}  // namespace snug
