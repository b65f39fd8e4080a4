#pragma once
/// MiKV (arXiv 2402.18096): the 16 tokens of a page that get most of the observed queries' softmax over the page stay;
/// the others become 2 bits per value between the extremes of 32 channels of a token, keys after each channel is
/// multiplied by sqrt(max |q| / max |k|), by which they are divided in the end. Here such keys are what differs from
/// their mean, which is added again, unlike in the paper.

#include <cmath>

#include "kv/references/integers.hpp"
#include "kv/references/observed.hpp"

namespace snug::reference {

class MiKv final : public ObservingReference {
public:
  using ObservingReference::ObservingReference;

protected:
  void reconstruct(KvPlace place, PlainPage& page) const override {
    for (std::size_t head = 0; head < page.heads; ++head) {
      const std::vector<std::size_t> order = descending(attention_received(place, head));
      std::vector<double> factor(page.dim, 1), mean(page.dim);
      for (std::size_t d = 0; d < page.dim && side() == KvSide::keys; ++d) {
        for (std::size_t i = 16; i < kPageTokens; ++i) mean[d] += page.at(head, order[i], d) / 48.0;
        double q = 0, k = 0;
        for (std::size_t i = 0; i < query_count(model().shapes[place.layer]); ++i)
          q = std::max<double>(q, std::abs(query(place, head, i, d)));
        for (std::size_t i = 16; i < kPageTokens; ++i) k = std::max(k, std::abs(page.at(head, order[i], d) - mean[d]));
        if (q > 0 && k > 0) factor[d] = std::sqrt(q / k);
      }
      for (std::size_t i = 16; i < kPageTokens; ++i)
        for (std::size_t first = 0; first < page.dim; first += 32) {
          std::vector<float> group;
          for (std::size_t d = first; d < std::min(page.dim, first + 32); ++d)
            group.push_back(static_cast<float>((page.at(head, order[i], d) - mean[d]) * factor[d]));
          quantise_between_extremes(group, 3);
          for (std::size_t d = first; d < first + group.size(); ++d)
            page.at(head, order[i], d) = static_cast<float>(group[d - first] / factor[d] + mean[d]);
        }
    }
  }

private:
  std::vector<double> attention_received(KvPlace place, std::size_t head) const {
    const KvShape& shape = model().shapes[place.layer];
    std::vector<double> received(kPageTokens);
    for (std::size_t i = 0; i < query_count(shape); ++i) {
      std::vector<double> score(kPageTokens);
      for (std::size_t t = 0; t < kPageTokens; ++t)
        for (std::size_t d = 0; d < shape.k_dim; ++d)
          score[t] += double{query(place, head, i, d)} * key(place, head, t, d);
      const double most = *std::max_element(score.begin(), score.end());
      double sum = 0;
      for (double& x : score) sum += x = std::exp(x - most);
      for (std::size_t t = 0; t < kPageTokens; ++t) received[t] += score[t] / sum;
    }
    return received;
  }
};

inline std::unique_ptr<KvCodec> mikv(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<MiKv>(side, std::move(model));
}

}  // namespace snug::reference
