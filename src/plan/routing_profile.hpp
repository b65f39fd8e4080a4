#pragma once
/// How often experts will be found in memory, from what a model's routers chose on a text: MODEL.gguf.routing, written
/// by `snug eval routing --save`. Without one, a plan takes routers for even.

#include <optional>
#include <string>
#include <vector>

#include "model/model.hpp"
#include "model/routing_trace.hpp"

namespace snug {

struct RoutingProfile {
  struct Point {
    double share;   ///< of all experts that a cache holds
    double best;    ///< hit rate that the best choice in each segment would have (SCH)
    double online;  ///< hit rate of the default policy, simulated
  };
  std::vector<Point> points;  ///< by growing share, from 0 to 1

  /// Between the points: on a line.
  Point at(double share) const;
  /// The least share with which the default policy finds this part of what is wanted; in [0, 1].
  double share_for(double online) const;
};

/// REQUIRES: a trace of at least a few segments.
RoutingProfile make_routing_profile(const RoutingTrace& trace, std::size_t segment);

/// Of the model in `file`; nothing when none was saved. Throws FormatError when it is none, or of another model.
std::optional<RoutingProfile> load_routing_profile(const GgufFile& file);
/// Throws IoError. Returns the path.
std::string save_routing_profile(const GgufFile& file, const RoutingProfile& profile);

/// Puts the profile's hit rate into a plan (and what is read for a token with it).
void apply(const RoutingProfile& profile, MemoryPlan& plan);

}  // namespace snug
