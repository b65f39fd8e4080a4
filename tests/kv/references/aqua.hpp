#pragma once
/// AQUA-KV (arXiv 2501.19392) with the learned maps: keys before rotation from the reconstructed keys of the layer
/// below, values from the reconstructed keys of their layer and values of the layer below. What is left is kept per
/// channel of a page in 4 levels evenly around zero (16 in the lowest layer), spaced for the least squared error.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kv/aqua_codec.hpp"
#include "kv/references/coupled.hpp"
#include "kv/references/layers.hpp"

namespace snug::reference {

class Aqua final : public LayersReference {
public:
  Aqua(KvSide side, std::shared_ptr<const KvModel> known)
      : LayersReference(side, std::move(known)), tables_(read_kv_tables(model(), "aqua-2")) {}

protected:
  void reconstruct_layers(const KvLayerPages& pages, std::vector<PlainPage>& layers) const override {
    std::vector<PlainPage> keys, values;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      keys.push_back(page_of(pages, KvSide::keys, layer));
      values.push_back(page_of(pages, KvSide::values, layer));
      if (keys[layer].heads == 0) continue;
      turn_all(keys[layer], pages.position, layer, -1);
      std::size_t below = layer;
      for (std::size_t other = 0; other < layer; ++other)
        if (model().shapes[other] == model().shapes[layer]) below = other;
      const bool lowest = below == layer;
      keep_rest(keys[layer], layer, "key", lowest ? std::vector<PlainPage*>{} : std::vector{&keys[below]}, lowest);
      keep_rest(values[layer], layer, "value",
                lowest ? std::vector{&keys[layer]} : std::vector{&keys[layer], &values[below]}, lowest);
    }
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      if (side() == KvSide::keys) turn_all(keys[layer], pages.position, layer, 1);
      layers[layer] = side() == KvSide::keys ? keys[layer] : values[layer];
    }
  }

private:
  void turn_all(PlainPage& page, std::size_t position, std::size_t layer, int direction) const {
    for (std::size_t head = 0; head < page.heads; ++head)
      for (std::size_t t = 0; t < kPageTokens; ++t)
        turn(model().ropes[layer], position + t, direction, &page.at(head, t, 0));
  }

  void keep_rest(PlainPage& page, std::size_t layer, const std::string& name, const std::vector<PlainPage*>& from,
                 bool lowest) const {
    const auto weights = tables_.find(layer, name + ".weights"), bias = tables_.find(layer, name + ".bias");
    std::size_t inputs = 0;
    for (const PlainPage* in : from) inputs += in->heads * in->dim;
    for (std::size_t channel = 0; channel < page.heads * page.dim; ++channel) {
      const std::size_t head = channel / page.dim, d = channel % page.dim;
      std::vector<double> said(kPageTokens), rest(kPageTokens);
      for (std::size_t t = 0; t < kPageTokens; ++t) {
        said[t] = bias[channel];
        std::size_t i = channel * inputs;
        for (PlainPage* in : from)
          for (std::size_t h = 0; h < in->heads; ++h)
            for (std::size_t k = 0; k < in->dim; ++k) said[t] += weights[i++] * in->at(h, t, k);
        rest[t] = page.at(head, t, d) - said[t];
      }
      const std::vector<double> kept = evenly(rest, lowest ? 16 : 4);
      for (std::size_t t = 0; t < kPageTokens; ++t) page.at(head, t, d) = static_cast<float>(said[t] + kept[t]);
    }
  }

  static std::vector<double> evenly(const std::vector<double>& x, int levels) {
    double most = 0, least = std::numeric_limits<double>::max();
    for (const double value : x) most = std::max(most, std::fabs(value));
    std::vector<double> best(x.size());
    for (int step = 1; step <= 200 && most > 0; ++step) {
      const double scale = 2 * most / levels * 1.4 * step / 200, middle = (levels - 1) / 2.0;
      std::vector<double> kept;
      double error = 0;
      for (const double value : x) {
        kept.push_back((std::clamp(std::floor(value / scale + levels / 2.0), 0.0, levels - 1.0) - middle) * scale);
        error += (value - kept.back()) * (value - kept.back());
      }
      if (error < least) least = error, best = kept;
    }
    return best;
  }

  KvTables tables_;
};

inline std::unique_ptr<KvCodec> aqua(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<Aqua>(side, std::move(model));
}

}  // namespace snug::reference
