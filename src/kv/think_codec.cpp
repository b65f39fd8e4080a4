#include "kv/think_codec.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "kernels/kv_pruned.hpp"
#include "kv/heaviest.hpp"
#include "kv/observed_queries.hpp"
#include "kv/plain_codec.hpp"
#include "kv/rope_page.hpp"

namespace snug {

namespace {

class ThinkCodec final : public KvCodec {
public:
  explicit ThinkCodec(std::shared_ptr<const KvModel> model) : model_(std::move(model)) {
    for (const KvShape& shape : model_->shapes) layouts_.push_back({shape.k_dim, shape.k_dim * 3 / 5});
  }
  bool observes() const override { return true; }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * layouts_[layer].bytes();
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const KvPruned& layout = layouts_[place.layer];
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head, page += layout.bytes()) {
      choose(place, head, heads[head], page);
      auto* lines = reinterpret_cast<bf16_t*>(page + layout.lines());
      for (std::size_t p = 0, used = 0; p < layout.dim / 2; ++p) {
        const unsigned stays = std::to_integer<unsigned>(page[p / 4]) >> p % 4 * 2 & 3;
        for (std::size_t t = 0; t < kPageTiles; ++t) {
          const bf16_t* from = heads[head] + t * kv_tile_values(layout.dim) + p * 2 * kTileTokens;
          bf16_t* to = lines + (t * layout.kept + used) * kTileTokens;
          if (stays == 3)
            std::memcpy(to, from, 2 * kTileTokens * sizeof(bf16_t));
          else if (stays != 0)
            for (std::size_t i = 0; i < kTileTokens; ++i) to[i] = from[2 * i + (stays == 2)];
        }
        used += static_cast<std::size_t>(std::popcount(stays));
      }
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const KvPruned& layout = layouts_[place.layer];
    kernels().unpack_pruned_keys(page + head * layout.bytes(), layout, tiles);
  }

private:
  /// Writes which channels of a head stay, and the means of the others.
  void choose(KvPlace place, std::size_t head, const bf16_t* tiles, std::byte* page) const {
    const KvPruned& layout = layouts_[place.layer];
    const std::size_t dim = layout.dim;
    const std::vector<float> queries = observed_queries(place.observed, model_->shapes[place.layer], head);
    std::vector<float> lines(dim * kPageTokens), part(dim), mean(dim);
    for (std::size_t q = 0; q < queries.size(); q += dim)
      for (std::size_t d = 0; d < dim; ++d) part[d] += queries[q + d] * queries[q + d];
    kernels().tiles_to_lines(tiles, page_lines(KvSide::keys, dim), lines.data());
    for (std::size_t d = 0; d < dim; ++d) {
      float* line = lines.data() + d * kPageTokens;
      mean[d] = std::accumulate(line, line + kPageTokens, 0.0f) / kPageTokens;
      for (std::size_t t = 0; t < kPageTokens; ++t) line[t] -= mean[d];
      part[d] *= kernels().dot(line, line, kPageTokens);
    }
    const std::vector<std::size_t> order = heaviest_first(part);
    std::vector<bool> stays(dim);
    for (std::size_t i = 0; i < layout.kept; ++i) stays[order[i]] = true;
    std::memset(page, 0, layout.means());
    auto* means = reinterpret_cast<bf16_t*>(page + layout.means());
    for (std::size_t d = 0; d < dim; ++d)
      if (stays[d])
        page[d / 8] |= std::byte{1} << d % 8;
      else
        kernels().to_bf16(&mean[d], 1, means++);
  }

  std::shared_ptr<const KvModel> model_;
  std::vector<KvPruned> layouts_;  ///< of each layer
};

}  // namespace

std::unique_ptr<KvCodec> make_think_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  if (side == KvSide::values) return make_plain_codec(side, std::move(model));
  return std::make_unique<ThinkCodec>(std::move(model));
}

}  // namespace snug
