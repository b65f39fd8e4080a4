#pragma once
/// Sparse codes (CSR, arXiv 2412.11741): matching pursuit over the learned dictionary, coefficients not rounded; keys
/// before rotation.

#include "kv/kv_tables.hpp"
#include "kv/references/coupled.hpp"

namespace snug::reference {

class Sparse final : public ReferenceCodec {
public:
  Sparse(KvSide side, std::shared_ptr<const KvModel> known)
      : ReferenceCodec(side, std::move(known)), tables_(read_kv_tables(model(), "csr-1")) {}

protected:
  void reconstruct(KvPlace place, PlainPage& page) const override {
    const bool keys = side() == KvSide::keys;
    const std::string name = keys ? "key" : "value";
    const auto atoms = tables_.find(place.layer, name + ".atoms"), mean = tables_.find(place.layer, name + ".mean"),
               factor = tables_.find(place.layer, name + ".factor");
    const std::size_t dim = page.dim, count = atoms.size() / dim;
    const KvRope& rope = model().ropes[place.layer];
    for (std::size_t head = 0; head < page.heads; ++head)
      for (std::size_t token = 0; token < kPageTokens; ++token) {
        float* x = &page.at(head, token, 0);
        if (keys) turn(rope, place.position + token, -1, x);
        std::vector<float> left(dim), sum(dim);
        for (std::size_t d = 0; d < dim; ++d) left[d] = (x[d] - mean[head * dim + d]) * factor[head * dim + d];
        for (std::size_t i = 0; i < dim / 16; ++i) {
          std::size_t best = 0;
          float coefficient = 0;
          for (std::size_t a = 0; a < count; ++a) {
            float product = 0;
            for (std::size_t d = 0; d < dim; ++d) product += atoms[a * dim + d] * left[d];
            if (std::abs(product) > std::abs(coefficient)) best = a, coefficient = product;
          }
          for (std::size_t d = 0; d < dim; ++d) {
            sum[d] += coefficient * atoms[best * dim + d];
            left[d] -= coefficient * atoms[best * dim + d];
          }
        }
        for (std::size_t d = 0; d < dim; ++d) x[d] = sum[d] / factor[head * dim + d] + mean[head * dim + d];
        if (keys) turn(rope, place.position + token, 1, x);
      }
  }

private:
  KvTables tables_;
};

inline std::unique_ptr<KvCodec> sparse(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<Sparse>(side, std::move(model));
}

}  // namespace snug::reference
