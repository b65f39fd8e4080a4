#include "kv/plain_codec.hpp"

#include <cstring>

namespace snug {

namespace {

class PlainCodec final : public KvCodec {
public:
  PlainCodec(KvSide side, std::shared_ptr<const KvModel> model) : side_(side), model_(std::move(model)) {}
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * head_bytes(layer);
  }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const std::size_t bytes = head_bytes(place.layer);
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head)
      std::memcpy(page + head * bytes, heads[head], bytes);
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const std::size_t bytes = head_bytes(place.layer);
    std::memcpy(tiles, page + head * bytes, bytes);
  }
  const bf16_t* tiles(std::size_t layer, std::size_t head, const std::byte* page) const override {
    return reinterpret_cast<const bf16_t*>(page + head * head_bytes(layer));
  }

private:
  std::size_t head_bytes(std::size_t layer) const {
    return kPageTokens * model_->shapes[layer].dim(side_) * sizeof(bf16_t);
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
};

}  // namespace

std::unique_ptr<KvCodec> make_plain_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<PlainCodec>(side, std::move(model));
}

}  // namespace snug
