#include "kv/aqua_codec.hpp"

#include <fmt/format.h>

#include "kv/line_codes.hpp"
#include "kv/rope_page.hpp"
#include "kv/tile_rows.hpp"

namespace snug {

namespace {

class AquaCodec final : public KvCodec {
public:
  AquaCodec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& tables)
      : side_(side), model_(std::move(model)), rope_(*model_) {
    const std::string name = side_name(side);
    for (std::size_t layer = 0; layer < model_->shapes.size(); ++layer) {
      Map map{AquaShape(*model_, layer, side), {}, {}};
      if (map.shape.outputs > 0) {
        if (map.shape.inputs() > 0)
          map.weights = tables.copy(layer, name + ".weights", map.shape.outputs * map.shape.inputs());
        map.bias = tables.copy(layer, name + ".bias", map.shape.outputs);
      }
      maps_.push_back(std::move(map));
    }
  }

  std::size_t page_bytes(std::size_t layer) const override {
    const AquaShape& shape = maps_[layer].shape;
    return shape.outputs * line_code_bytes(shape.bits());
  }
  Bytes table_bytes() const override {
    Bytes total = 0;
    for (const Map& map : maps_) total += (map.weights.size() + map.bias.size()) * sizeof(float);
    return total;
  }
  bool across_layers() const override { return true; }
  bool chained() const override { return true; }
  void encode(KvPlace, const bf16_t* const*, std::byte*) const override {}
  void decode(KvPlace, std::size_t, const std::byte*, bf16_t*) const override {}

  void encode_layers(const KvLayerPages& pages) const override {
    for (std::size_t lowest = 0; lowest < maps_.size(); ++lowest) {
      if (!pages.tiles[lowest] || !maps_[lowest].shape.lowest) continue;
      std::vector<bf16_t> now(model_->shapes[lowest].page_bytes() / sizeof(bf16_t));  // as far as decoded
      for (std::size_t layer = lowest; layer < maps_.size(); ++layer) {
        if (!(model_->shapes[layer] == model_->shapes[lowest])) continue;
        const KvPlace place{layer, pages.position};
        const std::size_t outputs = maps_[layer].shape.outputs;
        if (side_ == KvSide::values) decode_keys(pages, layer, now.data());
        const Lines wanted = lines_of(side_, place, pages.tiles[layer]), said = predict(place, now.data());
        kernels().axpy(wanted.get(), -1.0f, said.get(), outputs * kPageTokens);
        pack_lines(wanted.get(), outputs, maps_[layer].shape.bits(), pages.coded(side_, layer));
        decode_onto(place, pages.coded(side_, layer), now.data());
      }
    }
  }

  void decode_onto(KvPlace place, const std::byte* page, bf16_t* tiles) const override {
    const Map& map = maps_[place.layer];
    const KvShape& shape = model_->shapes[place.layer];
    const std::size_t dim = shape.dim(side_);
    const Lines lines = predict(place, tiles);
    kernels().add_line_codes(page, map.shape.outputs, map.shape.bits(), lines.get());
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      rope_.tiles_of(side_, place.layer, place.position, lines.get() + head * dim * kPageTokens,
                     tiles + shape.offset(side_, head));
    }
  }

private:
  using Lines = std::unique_ptr<float[]>;
  struct Map {
    AquaShape shape;
    std::vector<float> weights, bias;
  };

  static Lines make_lines(std::size_t count) { return std::make_unique_for_overwrite<float[]>(count * kPageTokens); }

  /// All heads' channels, f32[heads * dim][64], of a page of a layer.
  void lines_of(KvSide side, KvPlace place, const bf16_t* tiles, float* lines) const {
    const KvShape& shape = model_->shapes[place.layer];
    const std::size_t dim = shape.dim(side);
    for (std::size_t head = 0; head < shape.kv_heads; ++head, lines += dim * kPageTokens)
      rope_.channels_of(side, place.layer, place.position, tiles + shape.offset(side, head), lines);
  }
  Lines lines_of(KvSide side, KvPlace place, const bf16_t* tiles) const {
    const KvShape& shape = model_->shapes[place.layer];
    Lines lines = make_lines(shape.kv_heads * shape.dim(side));
    lines_of(side, place, tiles, lines.get());
    return lines;
  }

  /// From what is in `tiles`: the layer below, and for values this layer's keys.
  Lines predict(KvPlace place, const bf16_t* tiles) const {
    const Map& map = maps_[place.layer];
    const Lines in = make_lines(map.shape.inputs());
    if (map.shape.key_inputs > 0) lines_of(KvSide::keys, place, tiles, in.get());
    if (map.shape.value_inputs > 0)
      lines_of(KvSide::values, place, tiles, in.get() + map.shape.key_inputs * kPageTokens);
    Lines out = make_lines(map.shape.outputs);
    predict_lines(map.weights.data(), map.bias.data(), map.shape.inputs(), map.shape.outputs, in.get(), out.get());
    return out;
  }

  void decode_keys(const KvLayerPages& pages, std::size_t layer, bf16_t* tiles) const {
    const KvCodec& codec = *pages.key_codec;
    KvPlace place{layer, pages.position};
    if (codec.chained()) return codec.decode_onto(place, pages.keys[layer], tiles);
    if (const std::size_t lender = codec.lender(layer); lender != layer) place.lent = pages.keys[lender];
    const KvShape& shape = model_->shapes[layer];
    for (std::size_t head = 0; head < shape.kv_heads; ++head)
      codec.decode(place, head, pages.keys[layer], tiles + shape.offset(KvSide::keys, head));
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
  RopePages rope_;
  std::vector<Map> maps_;  ///< of each layer
};

}  // namespace

AquaShape::AquaShape(const KvModel& model, std::size_t layer, KvSide side) : lowest(!layer_below(model.shapes, layer)) {
  const KvShape& shape = model.shapes[layer];
  const std::size_t keys = std::size_t{shape.kv_heads} * shape.k_dim,
                    values = std::size_t{shape.kv_heads} * shape.v_dim;
  outputs = side == KvSide::keys ? keys : values;
  key_inputs = side == KvSide::values || !lowest ? keys : 0;
  value_inputs = side == KvSide::values && !lowest ? values : 0;
}

std::unique_ptr<KvCodec> make_aqua_codec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned) {
  return std::make_unique<AquaCodec>(side, std::move(model), learned);
}

}  // namespace snug
