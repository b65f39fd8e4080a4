#pragma once
/// Block floating point of 4-bit mantissas: per token, 32 channels share the exponent of their largest; with
/// `rearrange`, channels are sorted by their largest value in the page first.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kv/references/reference_codec.hpp"

namespace snug::reference {

class BlockFloats final : public ReferenceCodec {
public:
  BlockFloats(KvSide side, std::shared_ptr<const KvModel> model, bool rearrange)
      : ReferenceCodec(side, std::move(model)), rearrange_(rearrange) {}

protected:
  void reconstruct(KvPlace, PlainPage& page) const override {
    for (std::size_t head = 0; head < page.heads; ++head) {
      std::vector<std::size_t> order(page.dim);
      std::iota(order.begin(), order.end(), std::size_t{0});
      const auto largest = [&](std::size_t channel) {
        float most = 0;
        for (std::size_t token = 0; token < kPageTokens; ++token)
          most = std::max(most, std::abs(page.at(head, token, channel)));
        return most;
      };
      if (rearrange_)
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return largest(a) > largest(b); });
      for (std::size_t token = 0; token < kPageTokens; ++token)
        for (std::size_t first = 0; first < page.dim; first += 32) {
          const std::size_t last = std::min(page.dim, first + 32);
          float most = 0;
          for (std::size_t i = first; i < last; ++i) most = std::max(most, std::abs(page.at(head, token, order[i])));
          if (most == 0) continue;
          const float step = std::exp2(std::floor(std::log2(most)) - 2);
          for (std::size_t i = first; i < last; ++i) {
            float& x = page.at(head, token, order[i]);
            x = std::clamp(std::round(x / step), -8.0f, 7.0f) * step;
          }
        }
    }
  }

private:
  bool rearrange_;
};

template <bool kRearrange>
std::unique_ptr<KvCodec> block_floats(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<BlockFloats>(side, std::move(model), kRearrange);
}

}  // namespace snug::reference
