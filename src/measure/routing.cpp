#include "measure/routing.hpp"

#include <algorithm>
#include <functional>

#include "weights/expert_policy.hpp"

namespace snug {

namespace {

/// Uses of every expert of every layer by tokens [begin, end): [layer][expert].
std::vector<std::vector<std::uint32_t>> count_uses(const RoutingTrace& trace, std::size_t begin, std::size_t end) {
  std::vector<std::vector<std::uint32_t>> uses(trace.chosen.size(), std::vector<std::uint32_t>(trace.experts));
  for (std::size_t layer = 0; layer < uses.size(); ++layer)
    for (std::size_t t = begin; t < end; ++t)
      for (const std::uint16_t e : trace.at(layer, t)) ++uses[layer][e];
  return uses;
}

std::uint64_t sum_of_largest(std::vector<std::uint32_t> values, std::size_t count) {
  count = std::min(count, values.size());
  std::partial_sort(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count), values.end(),
                    std::greater<>());
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

/// covered(uses of a segment), over all segments, as a share of all choices.
template <class F>
double share_of_segments(const RoutingTrace& trace, std::size_t segment, F&& covered) {
  const std::size_t tokens = trace.tokens();
  std::uint64_t hits = 0;
  for (std::size_t begin = 0; begin < tokens; begin += segment)
    hits += covered(count_uses(trace, begin, std::min(tokens, begin + segment)));
  const auto all = static_cast<double>(tokens * trace.used * trace.chosen.size());
  return all > 0 ? static_cast<double>(hits) / all : 0;
}

}  // namespace

double segment_routing_performance(const RoutingTrace& trace, std::size_t segment, std::size_t group) {
  return share_of_segments(trace, segment, [&](const auto& uses) {
    std::uint64_t covered = 0;
    for (const auto& layer : uses) covered += sum_of_largest(layer, group);
    return covered;
  });
}

double segment_cache_hit_rate(const RoutingTrace& trace, std::size_t segment, std::size_t capacity) {
  return share_of_segments(trace, segment, [&](const auto& uses) {
    std::vector<std::uint32_t> all;
    for (const auto& layer : uses) all.insert(all.end(), layer.begin(), layer.end());
    return sum_of_largest(std::move(all), capacity);
  });
}

double simulate_expert_cache(const RoutingTrace& trace, std::string_view name, std::size_t capacity,
                             std::size_t warm_up) {
  const std::size_t layers = trace.chosen.size();
  const auto policy = make_expert_policy(name, layers, trace.experts);
  std::vector<std::uint8_t> cached(layers * trace.experts), likely(trace.experts);
  std::vector<ExpertId> inside;
  std::uint64_t hits = 0, all = 0;
  for (std::size_t token = 0; token < trace.tokens(); ++token)
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      std::vector<std::uint32_t> uses(trace.experts);
      for (const std::uint16_t e : trace.at(layer, token)) uses[e] = 1;
      // A trace holds choices only, so the bit of advice is: chosen now.
      for (std::size_t e = 0; e < trace.experts; ++e) likely[e] = static_cast<std::uint8_t>(uses[e]);
      policy->routed(layer, {uses, likely, 1});
      for (const std::uint16_t e : trace.at(layer, token)) {
        std::uint8_t& here = cached[layer * trace.experts + e];
        if (token >= warm_up) ++all, hits += here;
        if (here) continue;
        if (inside.size() >= capacity) {
          std::vector<ExpertId> candidates;
          std::copy_if(inside.begin(), inside.end(), std::back_inserter(candidates),
                       [&](ExpertId id) { return id.set != layer || uses[id.expert] == 0; });
          const ExpertId out = candidates[policy->victim(candidates)];
          cached[out.set * trace.experts + out.expert] = 0;
          std::erase(inside, out);
        }
        here = 1;
        inside.push_back({layer, e});
      }
    }
  return all ? static_cast<double>(hits) / static_cast<double>(all) : 0;
}

}  // namespace snug
