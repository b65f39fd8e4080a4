#include "kv/coupled_codec.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "kernels/kv_centroids.hpp"
#include "kv/key_excess.hpp"
#include "kv/rope_page.hpp"

namespace snug {

namespace {

constexpr std::size_t kMaxWidth = 8, kMaxDim = 512;

class CoupledCodec final : public KvCodec {
public:
  CoupledCodec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& tables, std::size_t width)
      : side_(side), model_(std::move(model)), width_(width), ropes_(*model_) {
    const std::string name = side_name(side);
    for (std::size_t i = 0; i < model_->shapes.size(); ++i) {
      const KvShape& shape = model_->shapes[i];
      Layer layer{{shape.dim(side) / width, width}, {}, {}, {}};
      if (shape.kv_heads > 0) {
        if (shape.dim(side) > kMaxDim) fail("heads of {} channels: coupled codes are for {}", shape.dim(side), kMaxDim);
        const std::size_t channels = shape.kv_heads * shape.dim(side);
        const auto centroids = tables.get(i, name + ".centroids", channels * kCentroids);
        layer.centroids.resize(centroids.size());
        kernels().to_bf16(centroids.data(), centroids.size(), layer.centroids.data());
        layer.weights = tables.copy(i, name + ".weights", channels);
        // It is measured on the codec: then it is not there yet.
        if (side == KvSide::keys && !tables.find(i, kKeyExcess).empty())
          layer.excess = tables.copy(i, kKeyExcess, channels);
      }
      layers_.push_back(std::move(layer));
    }
  }

  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * layers_[layer].layout.page_bytes();
  }
  Bytes table_bytes() const override {
    Bytes total = 0;
    for (const Layer& layer : layers_)
      total += layer.centroids.size() * sizeof(bf16_t) + (layer.weights.size() + layer.excess.size()) * sizeof(float);
    return total;
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const Layer& layer = layers_[place.layer];
    const std::size_t dim = layer.layout.dim();
    std::vector<float> lines(kPageTokens * dim);
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head) {
      ropes_.channels_of(side_, place.layer, place.position, heads[head], lines.data());
      for (std::size_t g = 0; g < layer.layout.groups; ++g)
        encode_group(layer, head * layer.layout.groups + g, &lines[g * width_ * kPageTokens],
                     page + (head * layer.layout.groups + g) * kPageTokens);
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const Layer& layer = layers_[place.layer];
    const std::size_t dim = layer.layout.dim();
    const std::byte* codes = page + head * layer.layout.page_bytes();
    const bf16_t* centroids = layer.centroids.data() + head * dim * kCentroids;
    if (side_ == KvSide::values) return kernels().values_of_centroids(codes, centroids, layer.layout, tiles);
    kernels().keys_of_centroids(codes, centroids, layer.layout, tiles);
    ropes_.turn_tiles(place.layer, place.position, tiles);
  }

  std::size_t excess_rows(std::size_t layer) const override { return layers_[layer].excess.empty() ? 0 : 1; }
  void key_excess(std::size_t layer, std::size_t head, const std::byte*, bf16_t* out) const override {
    const Layer& l = layers_[layer];
    kernels().to_bf16(&l.excess[head * l.layout.dim()], l.layout.dim(), out);
  }

private:
  struct Layer {
    KvCentroids layout;
    std::vector<bf16_t> centroids;  ///< [heads * groups][256][width]
    std::vector<float> weights;     ///< [heads * dim]
    std::vector<float> excess;      ///< the same; empty: not known
  };

  /// lines: f32[width][64].
  void encode_group(const Layer& layer, std::size_t group, const float* lines, std::byte* codes) const {
    std::array<float, kCentroids * kMaxWidth> weighted;
    std::array<float, kCentroids> bias;
    const bf16_t* centroids = &layer.centroids[group * kCentroids * width_];
    const float* weights = &layer.weights[group * width_];
    for (std::size_t c = 0; c < kCentroids; ++c) {
      bias[c] = 0;
      for (std::size_t i = 0; i < width_; ++i) {
        const float x = float_of(centroids[c * width_ + i]);
        weighted[c * width_ + i] = weights[i] * x;
        bias[c] -= 0.5f * weights[i] * x * x;
      }
    }
    kernels().nearest_centroids(lines, weighted.data(), bias.data(), width_, codes);
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
  std::size_t width_;
  RopePages ropes_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<KvCodec> make_coupled_codec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned,
                                            std::size_t width) {
  return std::make_unique<CoupledCodec>(side, std::move(model), learned, width);
}

}  // namespace snug
