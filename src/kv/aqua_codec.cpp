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
  bool chained() const override { return true; }
  void encode(KvPlace, const bf16_t* const*, std::byte*) const override {}
  void decode(KvPlace, std::size_t, const std::byte*, bf16_t*) const override {}

  void encode_onto(KvPlace place, const bf16_t* as_they_are, std::byte* page, bf16_t* tiles) const override {
    const AquaShape& shape = maps_[place.layer].shape;
    const Lines rest = lines_of(side_, place, as_they_are), said = predict(place, tiles);
    kernels().axpy(rest.get(), -1.0f, said.get(), shape.outputs * kPageTokens);
    pack_lines(rest.get(), shape.outputs, shape.bits(), page);
    add_rest(place, page, said.get(), tiles);
  }

  void decode_onto(KvPlace place, const std::byte* page, bf16_t* tiles) const override {
    add_rest(place, page, predict(place, tiles).get(), tiles);
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

  /// `said`: what was predicted.
  void add_rest(KvPlace place, const std::byte* page, float* said, bf16_t* tiles) const {
    const AquaShape& map = maps_[place.layer].shape;
    const KvShape& shape = model_->shapes[place.layer];
    kernels().add_line_codes(page, map.outputs, map.bits(), said);
    for (std::size_t head = 0; head < shape.kv_heads; ++head)
      rope_.tiles_of(side_, place.layer, place.position, said + head * shape.dim(side_) * kPageTokens,
                     tiles + shape.offset(side_, head));
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
