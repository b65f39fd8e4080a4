#pragma once
/// ThinK (arXiv 2407.21018): of a head's keys, the channels with the largest |q_d k_d^T| in the Frobenius norm over the
/// observed queries stay, 60% of them (rounded down); the others are zero. Here keys are what differs from their mean
/// over the page, which is kept, unlike in the paper.

#include "kv/plain_codec.hpp"
#include "kv/references/observed.hpp"

namespace snug::reference {

class Think final : public ObservingReference {
public:
  using ObservingReference::ObservingReference;

protected:
  void reconstruct(KvPlace place, PlainPage& page) const override {
    const std::size_t queries = query_count(model().shapes[place.layer]);
    for (std::size_t head = 0; head < page.heads; ++head) {
      std::vector<double> norms(page.dim), means(page.dim);
      for (std::size_t d = 0; d < page.dim; ++d) {
        for (std::size_t t = 0; t < kPageTokens; ++t) means[d] += double{page.at(head, t, d)} / kPageTokens;
        for (std::size_t i = 0; i < queries; ++i)
          for (std::size_t t = 0; t < kPageTokens; ++t) {
            const double product = double{query(place, head, i, d)} * (page.at(head, t, d) - means[d]);
            norms[d] += product * product;
          }
      }
      const std::vector<std::size_t> order = descending(norms);
      for (std::size_t i = page.dim * 60 / 100; i < page.dim; ++i)
        for (std::size_t t = 0; t < kPageTokens; ++t) page.at(head, t, order[i]) = static_cast<float>(means[order[i]]);
    }
  }
};

inline std::unique_ptr<KvCodec> think(KvSide side, std::shared_ptr<const KvModel> model) {
  if (side == KvSide::values) return make_plain_codec(side, std::move(model));
  return std::make_unique<Think>(side, std::move(model));
}

}  // namespace snug::reference
