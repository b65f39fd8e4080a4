#pragma once
/// How well a cache of experts can do and does: local routing consistency (arXiv 2505.16056) and the policies of
/// weights/expert_policy.hpp simulated over a routing trace.

#include <string_view>

#include "model/routing_trace.hpp"

namespace snug {

/// Segment routing best performance: for segments of `segment` tokens and each layer, the share of choices that the
/// best fixed group of `group` experts covers; the mean over all. In [0, 1].
double segment_routing_performance(const RoutingTrace& trace, std::size_t segment, std::size_t group);

/// Segment cache best hit rate: a cache of `capacity` experts (of all layers together) that holds, in each segment of
/// `segment` tokens, those that the segment uses most. In [0, 1]. An online cache does not know the segment.
double segment_cache_hit_rate(const RoutingTrace& trace, std::size_t segment, std::size_t capacity);

/// Share of choices that a cache of `capacity` experts under `policy` has in memory, one token at a time, beginning
/// empty; the first `warm_up` tokens are not counted. REQUIRES: capacity >= trace.used. Throws UsageError for an
/// unknown policy.
double simulate_expert_cache(const RoutingTrace& trace, std::string_view policy, std::size_t capacity,
                             std::size_t warm_up = 0);

}  // namespace snug
