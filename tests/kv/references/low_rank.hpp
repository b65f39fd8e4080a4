#pragma once
/// Low-rank channels (CSKV, arXiv 2409.10593): what the learned projections keep of a token, over all heads; keys
/// before rotation.

#include "kv/kv_tables.hpp"
#include "kv/references/coupled.hpp"

namespace snug::reference {

class LowRank final : public ReferenceCodec {
public:
  LowRank(KvSide side, std::shared_ptr<const KvModel> known)
      : ReferenceCodec(side, std::move(known)), tables_(read_kv_tables(model(), "cskv-50")) {}

protected:
  void reconstruct(KvPlace place, PlainPage& page) const override {
    const bool keys = side() == KvSide::keys;
    const std::string name = keys ? "key" : "value";
    const auto mean = tables_.find(place.layer, name + ".mean"), down = tables_.find(place.layer, name + ".down"),
               up = tables_.find(place.layer, name + ".up");
    const std::size_t channels = page.heads * page.dim, rank = down.size() / channels;
    const KvRope& rope = model().ropes[place.layer];
    for (std::size_t token = 0; token < kPageTokens; ++token) {
      for (std::size_t head = 0; keys && head < page.heads; ++head)
        turn(rope, place.position + token, -1, &page.at(head, token, 0));
      const auto x = [&](std::size_t c) -> float& { return page.at(c / page.dim, token, c % page.dim); };
      std::vector<double> code(rank);
      for (std::size_t r = 0; r < rank; ++r)
        for (std::size_t c = 0; c < channels; ++c) code[r] += down[r * channels + c] * (x(c) - mean[c]);
      for (std::size_t c = 0; c < channels; ++c) {
        double sum = mean[c];
        for (std::size_t r = 0; r < rank; ++r) sum += up[c * rank + r] * code[r];
        x(c) = static_cast<float>(sum);
      }
      for (std::size_t head = 0; keys && head < page.heads; ++head)
        turn(rope, place.position + token, 1, &page.at(head, token, 0));
    }
  }

private:
  KvTables tables_;
};

inline std::unique_ptr<KvCodec> low_rank(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<LowRank>(side, std::move(model));
}

}  // namespace snug::reference
