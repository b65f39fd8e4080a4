#pragma once
/// Coupled channels (CQ, arXiv 2405.03917): each group of `width` channels of a token becomes its nearest centroid,
/// keys before rotation. The centroids are those that were learned.

#include <cmath>
#include <limits>

#include "kv/kv_tables.hpp"
#include "kv/references/reference_codec.hpp"

namespace snug::reference {

/// Turns pair i of a key by position * frequency, `direction` 1 or -1.
inline void turn(const KvRope& rope, std::size_t position, int direction, float* key) {
  const std::size_t pairs = rope.inverse_frequency.size();
  const double size = direction > 0 ? rope.magnitude : 1.0 / rope.magnitude;
  for (std::size_t i = 0; i < pairs; ++i) {
    float &a = key[rope.split_half ? i : 2 * i], &b = key[rope.split_half ? i + pairs : 2 * i + 1];
    const double angle = direction * static_cast<double>(position) * rope.inverse_frequency[i], x = a, y = b;
    a = static_cast<float>((x * std::cos(angle) - y * std::sin(angle)) * size);
    b = static_cast<float>((x * std::sin(angle) + y * std::cos(angle)) * size);
  }
}

class Coupled final : public ReferenceCodec {
public:
  Coupled(KvSide side, std::shared_ptr<const KvModel> known, std::string_view name, std::size_t width)
      : ReferenceCodec(side, std::move(known)), tables_(read_kv_tables(model(), name)), width_(width) {}

protected:
  void reconstruct(KvPlace place, PlainPage& page) const override {
    const bool keys = side() == KvSide::keys;
    const std::string name = keys ? "key" : "value";
    const auto centroids = tables_.find(place.layer, name + ".centroids");
    const auto weights = tables_.find(place.layer, name + ".weights");
    for (std::size_t head = 0; head < page.heads; ++head)
      for (std::size_t token = 0; token < kPageTokens; ++token) {
        float* x = &page.at(head, token, 0);
        if (keys) turn(model().ropes[place.layer], place.position + token, -1, x);
        for (std::size_t first = 0; first < page.dim; first += width_) {
          const float* all = &centroids[(head * page.dim + first) * 256];
          const float* nearest = all;
          double least = std::numeric_limits<double>::max();
          for (std::size_t c = 0; c < 256; ++c) {
            double sum = 0;
            for (std::size_t i = 0; i < width_; ++i) {
              const double off = x[first + i] - all[c * width_ + i];
              sum += weights[head * page.dim + first + i] * off * off;
            }
            if (sum < least) least = sum, nearest = all + c * width_;
          }
          for (std::size_t i = 0; i < width_; ++i) x[first + i] = nearest[i];
        }
        if (keys) turn(model().ropes[place.layer], place.position + token, 1, x);
      }
  }

private:
  KvTables tables_;
  std::size_t width_;
};

inline std::unique_ptr<KvCodec> coupled_2(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<Coupled>(side, std::move(model), "cq-2", 4);
}
inline std::unique_ptr<KvCodec> coupled_1(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<Coupled>(side, std::move(model), "cq-1", 8);
}

}  // namespace snug::reference
