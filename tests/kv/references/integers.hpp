#pragma once
/// Asymmetric integers between the least and the largest value of a group: keys per channel over `group` tokens, values
/// per token over `group` channels (KIVI, arXiv 2402.02750).

#include <algorithm>
#include <cmath>

#include "kv/references/reference_codec.hpp"

namespace snug::reference {

/// The values that `levels` + 1 steps from the least to the largest of them give.
inline void quantise_between_extremes(std::vector<float>& group, float levels) {
  const auto [least, most] = std::minmax_element(group.begin(), group.end());
  const float low = *least, scale = (*most - low) / levels;
  if (scale == 0) return;
  for (float& x : group) x = std::round((x - low) / scale) * scale + low;
}

/// f(values of a group) may change them; groups of `size` tokens of a channel (keys) or channels of a token (values).
template <class F>
void for_each_group(KvSide side, PlainPage& page, std::size_t size, F&& f) {
  const std::size_t lines = side == KvSide::keys ? page.dim : kPageTokens,
                    positions = side == KvSide::keys ? kPageTokens : page.dim;
  const auto at = [&](std::size_t head, std::size_t line, std::size_t position) -> float& {
    return side == KvSide::keys ? page.at(head, position, line) : page.at(head, line, position);
  };
  std::vector<float> group;
  for (std::size_t head = 0; head < page.heads; ++head)
    for (std::size_t line = 0; line < lines; ++line)
      for (std::size_t first = 0; first < positions; first += size) {
        group.clear();
        for (std::size_t i = first; i < std::min(positions, first + size); ++i) group.push_back(at(head, line, i));
        f(group);
        for (std::size_t i = 0; i < group.size(); ++i) at(head, line, first + i) = group[i];
      }
}

class Integers final : public ReferenceCodec {
public:
  Integers(KvSide side, std::shared_ptr<const KvModel> model, int bits, std::size_t group)
      : ReferenceCodec(side, std::move(model)), levels_(static_cast<float>((1 << bits) - 1)), group_(group) {}

protected:
  void reconstruct(KvPlace, PlainPage& page) const override {
    for_each_group(side(), page, group_, [&](std::vector<float>& group) { quantise_between_extremes(group, levels_); });
  }

private:
  float levels_;
  std::size_t group_;
};

template <int kBits, std::size_t kGroup>
std::unique_ptr<KvCodec> integers(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<Integers>(side, std::move(model), kBits, kGroup);
}

}  // namespace snug::reference
