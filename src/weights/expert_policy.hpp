#pragma once
/// Which expert leaves the cache. The same classes decide in a running model (weights/expert_cache.hpp) and in the
/// simulation over a routing trace (measure/routing.hpp), where they are compared.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/weight_source.hpp"

namespace snug {

/// An expert of one layer's set.
struct ExpertId {
  std::uint32_t set = 0, expert = 0;
  bool operator==(const ExpertId&) const = default;
};

class ExpertPolicy {
public:
  virtual ~ExpertPolicy() = default;
  /// Called once per layer and pass, before its experts are looked up.
  virtual void routed(std::uint32_t set, const ExpertUses& uses) = 0;
  /// Index of the one to give up. REQUIRES: at least one candidate; all are in the cache and not in use.
  virtual std::size_t victim(std::span<const ExpertId> candidates) = 0;
};

struct ExpertPolicyInfo {
  std::string_view name, what;
  std::unique_ptr<ExpertPolicy> (*create)(std::size_t sets, std::size_t experts);
};

std::span<const ExpertPolicyInfo> expert_policies();
/// Throws UsageError, which lists the known ones, for another name.
std::unique_ptr<ExpertPolicy> make_expert_policy(std::string_view name, std::size_t sets, std::size_t experts);
inline constexpr std::string_view kDefaultExpertPolicy = "next-use";

}  // namespace snug
