#include "kv/minicache_codec.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kv/tile_rows.hpp"

namespace snug {

namespace {

/// What a head's page of an upper layer begins with; its unmerged tokens follow, bf16[kUnmergedTokens][dim].
struct UpperHead {
  float factor[kPageTokens];  ///< length of the upper layer's vector over that of the lower one
  std::uint32_t unmerged[kUnmergedTokens];
};

/// A direction between two that are `angle` apart: parts of the unit vectors.
std::pair<float, float> arc(float angle) {
  const float sine = std::sin(angle);
  if (sine < 1e-3f) return {1 - kMergeTowardsUpper, kMergeTowardsUpper};  // the arc is a line
  return {std::sin((1 - kMergeTowardsUpper) * angle) / sine, std::sin(kMergeTowardsUpper * angle) / sine};
}

class MiniCacheCodec final : public KvCodec {
public:
  MiniCacheCodec(KvSide side, std::shared_ptr<const KvModel> model)
      : side_(side), model_(std::move(model)), partners_(minicache_partners(*model_)) {}

  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * (upper(layer) ? upper_bytes(layer) : plain_bytes(layer));
  }
  bool across_layers() const override { return true; }
  std::size_t lender(std::size_t layer) const override { return upper(layer) ? partners_[layer] : layer; }
  void encode(KvPlace, const bf16_t* const*, std::byte*) const override {}

  void encode_layers(const KvLayerPages& pages) const override {
    for (std::size_t layer = 0; layer < pages.tiles.size(); ++layer) {
      if (!pages.tiles[layer] || upper(layer)) continue;
      const KvShape& shape = model_->shapes[layer];
      const std::size_t other = partners_[layer];
      for (std::size_t head = 0; head < shape.kv_heads; ++head) {
        const std::size_t at = shape.offset(side_, head);
        auto* out = reinterpret_cast<bf16_t*>(pages.coded(side_, layer) + head * plain_bytes(layer));
        std::memcpy(out, pages.tiles[layer] + at, plain_bytes(layer));
        if (other != layer)
          merge(layer, pages.tiles[other] + at, out, pages.coded(side_, other) + head * upper_bytes(layer));
      }
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const std::size_t plain = plain_bytes(place.layer), dim = model_->shapes[place.layer].dim(side_);
    if (!upper(place.layer)) {
      std::memcpy(tiles, page + head * plain, plain);
      return;
    }
    const auto* lower = reinterpret_cast<const bf16_t*>(place.lent + head * plain);
    page += head * upper_bytes(place.layer);
    UpperHead own;
    std::memcpy(&own, page, sizeof own);
    alignas(64) float factors[32];
    // Lanes of a vector: the tokens of a tile, each twice, or a pair of tokens by turns.
    const bool keys = side_ == KvSide::keys;
    const std::size_t tokens = keys ? kTileTokens : 2, values = tokens * dim;
    for (std::size_t first = 0; first < kPageTokens; first += tokens) {
      for (std::size_t i = 0; i < 32; ++i) factors[i] = own.factor[first + (keys ? i / 2 : i % 2)];
      kernels().scale_tile(lower + first * dim, values, factors, tiles + first * dim);
    }
    const auto* apart = reinterpret_cast<const bf16_t*>(page + sizeof own);
    for (std::size_t i = 0; i < kUnmergedTokens; ++i)
      for (std::size_t d = 0; d < dim; ++d)
        tiles[tile_index(side_, own.unmerged[i] % kPageTokens, d, dim)] = apart[i * dim + d];
  }

  const bf16_t* tiles(std::size_t layer, std::size_t head, const std::byte* page) const override {
    return upper(layer) ? nullptr : reinterpret_cast<const bf16_t*>(page + head * plain_bytes(layer));
  }

private:
  bool upper(std::size_t layer) const { return partners_[layer] < layer; }
  std::size_t plain_bytes(std::size_t layer) const {
    return kPageTokens * model_->shapes[layer].dim(side_) * sizeof(bf16_t);
  }
  std::size_t upper_bytes(std::size_t layer) const {
    return sizeof(UpperHead) + kUnmergedTokens * model_->shapes[layer].dim(side_) * sizeof(bf16_t);
  }

  /// One head: `lower` becomes the direction that both share, with its length.
  void merge(std::size_t layer, const bf16_t* upper, bf16_t* lower, std::byte* out) const {
    const std::size_t dim = model_->shapes[layer].dim(side_);
    std::vector<float> below(kPageTokens * dim), above(kPageTokens * dim);
    rows_of_tiles(side_, lower, dim, below.data());
    rows_of_tiles(side_, upper, dim, above.data());
    UpperHead own{};
    std::array<float, kPageTokens> lengths{}, angles{};
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      const float *a = below.data() + t * dim, *b = above.data() + t * dim;
      const float a_length = std::sqrt(kernels().dot(a, a, dim)), b_length = std::sqrt(kernels().dot(b, b, dim));
      // Without a length there is no direction: as far apart as can be.
      const bool both = a_length > 0 && b_length > 0;
      const float cosine = both ? kernels().dot(a, b, dim) / a_length / b_length : -1.0f;
      angles[t] = std::acos(std::clamp(cosine, -1.0f, 1.0f));
      lengths[t] = a_length;
      own.factor[t] = both ? b_length / a_length : 0.0f;
    }
    std::array<std::uint32_t, kPageTokens> order;
    for (std::uint32_t t = 0; t < kPageTokens; ++t) order[t] = t;
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return angles[a] > angles[b]; });
    std::copy_n(order.begin(), kUnmergedTokens, own.unmerged);
    for (std::size_t i = kUnmergedTokens; i < kPageTokens; ++i) {
      const std::size_t t = order[i];
      const auto [a_part, b_part] = arc(angles[t]);
      for (std::size_t d = 0; d < dim; ++d) {
        float& x = below[t * dim + d];
        if (own.factor[t] > 0) x = a_part * x + b_part / own.factor[t] * above[t * dim + d];
      }
    }
    tiles_of_rows(side_, below.data(), dim, lower);
    std::memcpy(out, &own, sizeof own);
    auto* apart = reinterpret_cast<bf16_t*>(out + sizeof own);
    for (std::size_t i = 0; i < kUnmergedTokens; ++i)
      for (std::size_t d = 0; d < dim; ++d) apart[i * dim + d] = upper[tile_index(side_, own.unmerged[i], d, dim)];
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
  std::vector<std::size_t> partners_;
};

}  // namespace

std::vector<std::size_t> minicache_partners(const KvModel& model) {
  const auto& shapes = model.shapes;
  std::vector<std::size_t> partners(shapes.size());
  for (std::size_t layer = 0; layer < shapes.size(); ++layer) partners[layer] = layer;
  for (std::size_t layer = shapes.size() / 2; layer < shapes.size(); ++layer) {
    const auto below = layer_below(shapes, layer);
    if (shapes[layer].kv_heads == 0 || !below || *below < shapes.size() / 2 || partners[*below] != *below) continue;
    partners[layer] = *below;
    partners[*below] = layer;
  }
  return partners;
}

std::unique_ptr<KvCodec> make_minicache_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<MiniCacheCodec>(side, std::move(model));
}

}  // namespace snug
