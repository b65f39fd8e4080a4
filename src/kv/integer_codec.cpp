#include "kv/integer_codec.hpp"

namespace snug {

namespace {

class IntegerCodec final : public KvCodec {
public:
  IntegerCodec(KvSide side, std::shared_ptr<const KvModel> model, std::size_t bits, std::size_t group,
               KvCodes::Ends ends)
      : model_(std::move(model)) {
    for (const KvShape& shape : model_->shapes) {
      codes_.push_back(integer_page(side, shape.dim(side), bits, group));
      codes_.back().ends = ends;
      head_bytes_.push_back(codes_.back().bytes());
    }
    if (side == KvSide::keys) excess_ = excess(bits, ends);
  }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * head_bytes_[layer];
  }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const KvCodes& codes = codes_[place.layer];
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head)
      kernels().pack_kv(heads[head], codes, page + head * codes.bytes());
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const KvCodes& codes = codes_[place.layer];
    kernels().unpack_kv(page + head * head_bytes_[place.layer], codes, tiles);
  }
  std::size_t excess_rows(std::size_t layer) const override { return excess_ != 0 ? codes_[layer].groups() : 0; }
  void key_excess(std::size_t layer, std::size_t head, const std::byte* page, bf16_t* out) const override {
    const KvCodes& codes = codes_[layer];
    kernels().kv_excess(page + head * head_bytes_[layer], codes, excess_, out);
  }

private:
  /// In squares of the scales: a twelfth of the square of a step, as of errors that lie evenly within it.
  static float excess(std::size_t bits, KvCodes::Ends ends) {
    // The mean of what it stands for scatters less.
    if (ends == KvCodes::Ends::half_means) return -1.0f / 12;
    // Few steps between the extremes: most values lie towards the middle of theirs, and are moved outwards.
    return bits == 2 ? 1.0f / 12 : 0;
  }

  std::shared_ptr<const KvModel> model_;
  std::vector<KvCodes> codes_;           ///< of each layer
  std::vector<std::size_t> head_bytes_;  ///< codes_[layer].bytes(), which divides
  float excess_ = 0;
};

}  // namespace

KvCodes integer_page(KvSide side, std::size_t dim, std::size_t bits, std::size_t group) {
  if (side == KvSide::keys) return {bits, dim, kPageTiles, group / kTileTokens, kv_tile_values(dim), 2 * kTileTokens};
  return {bits, kPageTokens, dim / 16, group / 16, 2 * 16, 2 * dim};
}

std::unique_ptr<KvCodec> make_integer_codec(KvSide side, std::shared_ptr<const KvModel> model, std::size_t bits,
                                            std::size_t group) {
  return std::make_unique<IntegerCodec>(side, std::move(model), bits, group, KvCodes::Ends::extremes);
}

std::unique_ptr<KvCodec> make_group_bit_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<IntegerCodec>(side, std::move(model), 1, 32, KvCodes::Ends::half_means);
}

}  // namespace snug
