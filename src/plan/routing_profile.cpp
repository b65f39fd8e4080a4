#include "plan/routing_profile.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "format/fingerprint.hpp"
#include "measure/routing.hpp"
#include "weights/expert_policy.hpp"

namespace snug {

namespace {

constexpr double kShares[] = {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8};

std::string profile_path(const GgufFile& file) {
  return file.path() + ".routing";
}

double between(double x, double x0, double y0, double x1, double y1) {
  return x1 > x0 ? y0 + (y1 - y0) * (x - x0) / (x1 - x0) : y1;
}

}  // namespace

RoutingProfile::Point RoutingProfile::at(double share) const {
  share = std::clamp(share, 0.0, 1.0);
  const auto after = std::find_if(points.begin(), points.end() - 1, [&](const Point& p) { return p.share >= share; });
  if (after == points.begin()) return *after;
  const Point &low = *(after - 1), &high = *after;
  return {share, between(share, low.share, low.best, high.share, high.best),
          between(share, low.share, low.online, high.share, high.online)};
}

double RoutingProfile::share_for(double online) const {
  for (std::size_t i = 1; i < points.size(); ++i)
    if (points[i].online >= online)
      return between(online, points[i - 1].online, points[i - 1].share, points[i].online, points[i].share);
  return 1;
}

RoutingProfile make_routing_profile(const RoutingTrace& trace, std::size_t segment) {
  const std::size_t all = trace.experts * trace.chosen.size(), tokens = trace.chosen[0].size() / trace.used;
  RoutingProfile profile;
  profile.points.push_back({0, 0, 0});
  for (const double share : kShares) {
    const auto capacity = static_cast<std::size_t>(share * static_cast<double>(all));
    if (capacity < trace.used) continue;
    profile.points.push_back({share, segment_cache_hit_rate(trace, segment, capacity),
                              simulate_expert_cache(trace, kDefaultExpertPolicy, capacity, tokens / 4)});
  }
  profile.points.push_back({1, 1, 1});
  return profile;
}

std::optional<RoutingProfile> load_routing_profile(const GgufFile& file) {
  const std::string path = profile_path(file);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  RoutingProfile profile;
  try {
    const auto json = nlohmann::json::parse(read_text_file(path, kMiB));
    if (json.at("model").get<std::uint64_t>() != model_fingerprint(file))
      fail<FormatError>("{} is of another model: make it again (snug eval routing --save), or remove it", path);
    for (const auto& p : json.at("points"))
      profile.points.push_back({p.at(0).get<double>(), p.at(1).get<double>(), p.at(2).get<double>()});
  } catch (const nlohmann::json::exception&) {
    fail<FormatError>("{} is no routing profile", path);
  }
  const auto disorder = [](const auto& a, const auto& b) { return !(a.share < b.share); };
  if (profile.points.size() < 2 ||
      std::adjacent_find(profile.points.begin(), profile.points.end(), disorder) != profile.points.end())
    fail<FormatError>("{} is no routing profile", path);
  return profile;
}

std::string save_routing_profile(const GgufFile& file, const RoutingProfile& profile) {
  nlohmann::ordered_json json = {{"model", model_fingerprint(file)}, {"points", nlohmann::json::array()}};
  for (const auto& p : profile.points) json["points"].push_back({p.share, p.best, p.online});
  const std::string text = json.dump(1), path = profile_path(file);
  write_atomically(path, [&](const auto& append) { append(std::as_bytes(std::span(text))); });
  return path;
}

void apply(const RoutingProfile& profile, MemoryPlan& plan) {
  if (plan.expert_token_bytes == 0 || plan.weights.whole) return;
  const RoutingProfile::Point p = profile.at(plan.weights.expert_share);
  plan.expert_hits = p.online;
  plan.expert_hits_best = p.best;
  plan.streamed_bytes =
      plan.weights.streamed + static_cast<Bytes>(static_cast<double>(plan.expert_token_bytes) * (1 - p.online));
}

}  // namespace snug
