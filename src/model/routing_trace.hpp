#pragma once
/// What the routers of a mixture of experts chose, token by token.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace snug {

struct RoutingTrace {
  std::size_t experts = 0, used = 0;
  std::vector<std::vector<std::uint16_t>> chosen;  ///< per layer with experts: [token][used]

  /// Tokens that every layer has seen (the last layer of a prefill sees only rows whose logits are wanted).
  std::size_t tokens() const {
    std::size_t least = chosen.empty() ? 0 : SIZE_MAX;
    for (const auto& layer : chosen) least = layer.size() / used < least ? layer.size() / used : least;
    return least;
  }
  std::span<const std::uint16_t> at(std::size_t layer, std::size_t token) const {
    return std::span(chosen[layer]).subspan(token * used, used);
  }
};

}  // namespace snug
