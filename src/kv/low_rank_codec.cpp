#include "kv/low_rank_codec.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/kv_low_rank.hpp"
#include "kv/rope_page.hpp"

namespace snug {

namespace {

/// Integers in [-127, 127], nearest to x[n] / scale. Returns the scale.
float to_integers(const float* x, std::size_t n, std::int8_t* out) {
  float most = 0;
  for (std::size_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  const float inverse = most > 0 ? 127 / most : 0;
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::int8_t>(std::lround(x[i] * inverse));
  return most / 127;
}

/// A page: f32 scale[64] of the tokens, the sums of their integers, i32[64], and the integers: of keys they are the
/// product's lanes, of values its rows.
class LowRankCodec final : public KvCodec {
public:
  LowRankCodec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& tables)
      : keys_(side == KvSide::keys), side_(side), model_(std::move(model)), ropes_(*model_) {
    const std::string name = side_name(side);
    for (std::size_t i = 0; i < model_->shapes.size(); ++i) {
      const KvShape& shape = model_->shapes[i];
      Layer layer;
      layer.channels = shape.kv_heads * shape.dim(side);
      layer.rank = low_rank(layer.channels);
      if (layer.channels > 0) {
        layer.mean = tables.copy(i, name + ".mean", layer.channels);
        layer.down = tables.copy(i, name + ".down", layer.rank * layer.channels);
        set_up(layer, tables.copy(i, name + ".up", layer.channels * layer.rank));
      }
      layers_.push_back(std::move(layer));
    }
  }

  std::size_t page_bytes(std::size_t layer) const override {
    return layers_[layer].channels == 0 ? 0 : kIntegers + layers_[layer].rank * kPageTokens;
  }
  Bytes table_bytes() const override {
    Bytes total = 0;
    for (const Layer& l : layers_)
      total += (l.mean.size() + l.down.size() + l.up_scale.size() + l.up_sums.size()) * sizeof(float) + l.up.size();
    return total;
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const Layer& l = layers_[place.layer];
    const KvShape& shape = model_->shapes[place.layer];
    const std::size_t dim = shape.dim(side_), c = l.channels;
    std::vector<float> x(c * kPageTokens), codes(l.rank * kPageTokens), code(l.rank);
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      float* lines = &x[head * dim * kPageTokens];
      ropes_.channels_of(side_, place.layer, place.position, heads[head], lines);
      for (std::size_t i = 0; i < dim * kPageTokens; ++i) lines[i] -= l.mean[head * dim + i / kPageTokens];
    }
    kernels().add_product(l.down.data(), x.data(), l.rank, c, kPageTokens, codes.data());
    const KvLowRank layout{.rank = l.rank};
    std::vector<std::int8_t> integers(l.rank);
    auto* scales = reinterpret_cast<float*>(page);
    auto* sums = reinterpret_cast<std::int32_t*>(page + kSums);
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      for (std::size_t r = 0; r < l.rank; ++r) code[r] = codes[r * kPageTokens + t];
      scales[t] = to_integers(code.data(), l.rank, integers.data());
      sums[t] = 0;
      for (std::size_t r = 0; r < l.rank; ++r) {
        sums[t] += integers[r];
        page[kIntegers + (keys_ ? layout.lane_index(t, r) : t * l.rank + r)] = static_cast<std::byte>(integers[r]);
      }
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const Layer& l = layers_[place.layer];
    const std::size_t dim = model_->shapes[place.layer].dim(side_), first = head * dim;
    const auto* scales = reinterpret_cast<const float*>(page);
    const auto* sums = reinterpret_cast<const std::int32_t*>(page + kSums);
    const auto* integers = reinterpret_cast<const std::int8_t*>(page + kIntegers);
    const std::int8_t* up = &l.up[first * l.rank];
    const KvLines lines = page_lines(side_, dim);
    if (!keys_) {
      return kernels().multiply_low_rank_kv(
          {l.rank, integers, scales, nullptr, sums, up, &l.up_scale[first], &l.mean[first]}, lines, tiles);
    }
    kernels().multiply_low_rank_kv(
        {l.rank, up, &l.up_scale[first], &l.mean[first], &l.up_sums[first], integers, scales, nullptr}, lines, tiles);
    ropes_.turn_tiles(place.layer, place.position, tiles);
  }

private:
  static constexpr std::size_t kSums = kPageTokens * sizeof(float), kIntegers = 2 * kSums;

  struct Layer {
    std::size_t channels = 0, rank = 0;
    std::vector<float> mean;
    std::vector<float> down;      ///< [rank][channels]
    std::vector<std::int8_t> up;  ///< [channels][rank]; of values, KvLowRank::lanes
    std::vector<float> up_scale;  ///< [channels]
    std::vector<std::int32_t> up_sums;
  };

  void set_up(Layer& l, const std::vector<float>& up) const {
    const KvLowRank layout{.rank = l.rank};
    std::vector<std::int8_t> row(l.rank);
    l.up.resize(l.channels * l.rank);
    for (std::size_t c = 0; c < l.channels; ++c) {
      l.up_scale.push_back(to_integers(&up[c * l.rank], l.rank, row.data()));
      l.up_sums.push_back(std::accumulate(row.begin(), row.end(), 0));
      for (std::size_t r = 0; r < l.rank; ++r) l.up[keys_ ? c * l.rank + r : layout.lane_index(c, r)] = row[r];
    }
  }

  bool keys_;
  KvSide side_;
  std::shared_ptr<const KvModel> model_;
  RopePages ropes_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<KvCodec> make_low_rank_codec(KvSide side, std::shared_ptr<const KvModel> model,
                                             const KvTables& learned) {
  return std::make_unique<LowRankCodec>(side, std::move(model), learned);
}

}  // namespace snug
