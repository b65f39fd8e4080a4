#include "kv/minicache_codec.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/kv_lines.hpp"
#include "kv/heaviest.hpp"
#include "kv/rope_page.hpp"
#include "kv/tile_rows.hpp"

namespace snug {

namespace {

/// How a head's page of a merged layer lies in memory. The lower one: tiles (what differs from the page's mean), the
/// mean, bf16[dim]. The upper one: what follows the mean.
struct Merged {
  std::size_t dim;

  std::size_t tile_bytes() const { return kPageTokens * dim * sizeof(bf16_t); }
  std::size_t mean_bytes() const { return dim * sizeof(bf16_t); }
  std::size_t lower_bytes() const { return tile_bytes() + mean_bytes(); }
  std::size_t factors() const { return mean_bytes(); }  ///< f32[64]: length over that of the lower layer's vector
  std::size_t unmerged() const { return factors() + kPageTokens * sizeof(float); }  ///< u8[kUnmergedTokens]
  std::size_t apart() const { return unmerged() + kUnmergedTokens; }  ///< their vectors, bf16[kUnmergedTokens][dim]
  std::size_t upper_bytes() const { return apart() + kUnmergedTokens * dim * sizeof(bf16_t); }
};
static_assert(kUnmergedTokens % sizeof(bf16_t) == 0);

/// A direction between two that are `angle` apart: parts of the unit vectors.
std::pair<float, float> arc(float angle) {
  const float sine = std::sin(angle);
  if (sine < 1e-3f) return {1 - kMergeTowardsUpper, kMergeTowardsUpper};  // the arc is a line
  return {std::sin((1 - kMergeTowardsUpper) * angle) / sine, std::sin(kMergeTowardsUpper * angle) / sine};
}

class MiniCacheCodec final : public KvCodec {
public:
  MiniCacheCodec(KvSide side, std::shared_ptr<const KvModel> model)
      : side_(side), model_(std::move(model)), partners_(minicache_partners(*model_)), ropes_(*model_) {}

  std::size_t page_bytes(std::size_t layer) const override {
    const Merged m = merged(layer);
    return model_->shapes[layer].kv_heads * (!has_partner(layer) ? m.tile_bytes()
                                             : upper(layer)      ? m.upper_bytes()
                                                                 : m.lower_bytes());
  }
  bool across_layers() const override { return true; }
  std::size_t lender(std::size_t layer) const override { return upper(layer) ? partners_[layer] : layer; }
  void encode(KvPlace, const bf16_t* const*, std::byte*) const override {}

  void encode_layers(const KvLayerPages& pages) const override {
    for (std::size_t layer = 0; layer < pages.tiles.size(); ++layer) {
      if (!pages.tiles[layer] || upper(layer)) continue;
      const KvShape& shape = model_->shapes[layer];
      const Merged m = merged(layer);
      for (std::size_t head = 0; head < shape.kv_heads; ++head) {
        const bf16_t* tiles = pages.tiles[layer] + shape.offset(side_, head);
        std::byte* out = pages.coded(side_, layer);
        if (!has_partner(layer))
          std::memcpy(out + head * m.tile_bytes(), tiles, m.tile_bytes());
        else
          merge({layer, pages.position}, tiles, pages.tiles[partners_[layer]] + shape.offset(side_, head),
                out + head * m.lower_bytes(), pages.coded(side_, partners_[layer]) + head * m.upper_bytes());
      }
    }
  }

  const bf16_t* tiles(std::size_t layer, std::size_t head, const std::byte* page) const override {
    return has_partner(layer) ? nullptr : reinterpret_cast<const bf16_t*>(page + head * merged(layer).tile_bytes());
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const Merged m = merged(place.layer);
    if (!has_partner(place.layer)) {
      std::memcpy(tiles, page + head * m.tile_bytes(), m.tile_bytes());
      return;
    }
    const bool is_upper = upper(place.layer);
    const std::byte *lower = is_upper ? place.lent + head * m.lower_bytes() : page + head * m.lower_bytes(),
                    *own = is_upper ? page + head * m.upper_bytes() : lower;
    const KvLines layout = page_lines(side_, m.dim);
    thread_local std::vector<float> lines, means;
    lines.resize(kPageTokens * m.dim), means.resize(kPageTokens * m.dim);
    kernels().tiles_to_lines(reinterpret_cast<const bf16_t*>(lower), layout, lines.data());
    if (is_upper) {
      std::array<float, kPageTokens> factors;
      std::memcpy(factors.data(), own + m.factors(), sizeof factors);
      scale_tokens(lines.data(), m.dim, factors);
      for (std::size_t i = 0; i < kUnmergedTokens; ++i) {
        const std::size_t t = std::to_integer<std::size_t>(own[m.unmerged() + i]) % kPageTokens;
        const auto* apart = reinterpret_cast<const bf16_t*>(own + m.apart()) + i * m.dim;
        for (std::size_t d = 0; d < m.dim; ++d) lines[at(t, d, m.dim)] = float_of(apart[d]);
      }
    }
    const auto* mean = reinterpret_cast<const bf16_t*>(own + (is_upper ? 0 : m.tile_bytes()));
    if (side_ == KvSide::values) {
      kernels().from_bf16(mean, m.dim, means.data());
      for (std::size_t t = 0; t < kPageTokens; ++t) kernels().add(&lines[t * m.dim], means.data(), m.dim);
    } else {
      spread_mean(place, mean, m.dim, means.data());
      kernels().add(lines.data(), means.data(), lines.size());
    }
    kernels().lines_to_tiles(lines.data(), layout, tiles);
  }

private:
  Merged merged(std::size_t layer) const { return {model_->shapes[layer].dim(side_)}; }
  bool has_partner(std::size_t layer) const { return partners_[layer] != layer; }
  bool upper(std::size_t layer) const { return partners_[layer] < layer; }
  /// Where a channel of a token lies in lines.
  std::size_t at(std::size_t token, std::size_t d, std::size_t dim) const {
    return side_ == KvSide::keys ? d * kPageTokens + token : token * dim + d;
  }
  void scale_tokens(float* lines, std::size_t dim, const std::array<float, kPageTokens>& factors) const {
    if (side_ == KvSide::keys)
      for (std::size_t d = 0; d < dim; ++d) kernels().multiply(lines + d * kPageTokens, factors.data(), kPageTokens);
    else
      for (std::size_t t = 0; t < kPageTokens; ++t) kernels().scale(lines + t * dim, factors[t], dim);
  }

  /// The mean (of keys: before rotation) at each token, as lines.
  void spread_mean(KvPlace place, const bf16_t* mean, std::size_t dim, float* lines) const {
    if (side_ == KvSide::values) {
      kernels().from_bf16(mean, dim, lines);
      for (std::size_t t = 1; t < kPageTokens; ++t) std::copy_n(lines, dim, lines + t * dim);
      return;
    }
    for (std::size_t d = 0; d < dim; ++d) std::fill_n(lines + d * kPageTokens, kPageTokens, float_of(mean[d]));
    kernels().rotate_lines(lines, ropes_.at(place.layer, place.position), false);
  }

  /// A head's vectors [64][dim] without their mean, which goes to `mean` (bf16[dim]).
  std::vector<float> centred(KvPlace place, const bf16_t* tiles, std::size_t dim, std::byte* mean) const {
    std::vector<float> lines(kPageTokens * dim), means(kPageTokens * dim), rows(kPageTokens * dim);
    ropes_.channels_of(side_, place.layer, place.position, tiles, lines.data());
    auto* to = reinterpret_cast<bf16_t*>(mean);
    for (std::size_t d = 0; d < dim; ++d) {
      const auto line = lines.begin() + static_cast<std::ptrdiff_t>(d * kPageTokens);
      const float average = std::accumulate(line, line + kPageTokens, 0.0f) / kPageTokens;
      kernels().to_bf16(&average, 1, to + d);
    }
    spread_mean(place, to, dim, means.data());
    rows_of_tiles(side_, tiles, dim, rows.data());
    for (std::size_t t = 0; t < kPageTokens; ++t)
      for (std::size_t d = 0; d < dim; ++d) rows[t * dim + d] -= means[at(t, d, dim)];
    return rows;
  }

  /// One head: the lower layer's page gets the direction that both share, with its own length.
  void merge(KvPlace lower, const bf16_t* lower_tiles, const bf16_t* upper_tiles, std::byte* lower_page,
             std::byte* upper_page) const {
    const Merged m = merged(lower.layer);
    const std::size_t dim = m.dim;
    std::vector<float> below = centred(lower, lower_tiles, dim, lower_page + m.tile_bytes()),
                       above = centred({partners_[lower.layer], lower.position}, upper_tiles, dim, upper_page);
    std::array<float, kPageTokens> factors{};
    std::vector<float> angles(kPageTokens);
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      const float *a = below.data() + t * dim, *b = above.data() + t * dim;
      const float a_length = std::sqrt(kernels().dot(a, a, dim)), b_length = std::sqrt(kernels().dot(b, b, dim));
      // Without a length there is no direction: as far apart as can be.
      const bool both = a_length > 0 && b_length > 0;
      const float cosine = both ? kernels().dot(a, b, dim) / a_length / b_length : -1.0f;
      angles[t] = std::acos(std::clamp(cosine, -1.0f, 1.0f));
      factors[t] = both ? b_length / a_length : 0.0f;
    }
    const std::vector<std::size_t> order = heaviest_first(angles);
    for (std::size_t i = kUnmergedTokens; i < kPageTokens; ++i) {
      const std::size_t t = order[i];
      const auto [a_part, b_part] = arc(angles[t]);
      for (std::size_t d = 0; d < dim; ++d) {
        float& x = below[t * dim + d];
        if (factors[t] > 0) x = a_part * x + b_part / factors[t] * above[t * dim + d];
      }
    }
    tiles_of_rows(side_, below.data(), dim, reinterpret_cast<bf16_t*>(lower_page));
    std::memcpy(upper_page + m.factors(), factors.data(), sizeof factors);
    auto* apart = reinterpret_cast<bf16_t*>(upper_page + m.apart());
    for (std::size_t i = 0; i < kUnmergedTokens; ++i) {
      upper_page[m.unmerged() + i] = std::byte{static_cast<std::uint8_t>(order[i])};
      kernels().to_bf16(&above[order[i] * dim], dim, apart + i * dim);
    }
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
  std::vector<std::size_t> partners_;
  RopePages ropes_;
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
