#include "kv/layered_codec.hpp"

#include <algorithm>
#include <set>

namespace snug {

namespace {

class LayeredCodec final : public KvCodec {
public:
  explicit LayeredCodec(std::vector<std::shared_ptr<const KvCodec>> layers) : layers_(std::move(layers)) {}

  std::size_t page_bytes(std::size_t layer) const override { return layers_[layer]->page_bytes(layer); }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    layers_[place.layer]->encode(place, heads, page);
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    layers_[place.layer]->decode(place, head, page, tiles);
  }
  const bf16_t* tiles(std::size_t layer, std::size_t head, const std::byte* page) const override {
    return layers_[layer]->tiles(layer, head, page);
  }
  std::size_t excess_rows(std::size_t layer) const override { return layers_[layer]->excess_rows(layer); }
  void key_excess(std::size_t layer, std::size_t head, const std::byte* page, bf16_t* excess) const override {
    layers_[layer]->key_excess(layer, head, page, excess);
  }
  Bytes table_bytes() const override {
    Bytes total = 0;
    for (const auto& codec : std::set(layers_.begin(), layers_.end())) total += codec->table_bytes();
    return total;
  }
  bool observes() const override {
    return std::any_of(layers_.begin(), layers_.end(), [](const auto& codec) { return codec->observes(); });
  }

private:
  std::vector<std::shared_ptr<const KvCodec>> layers_;
};

}  // namespace

std::shared_ptr<const KvCodec> make_layered_codec(std::vector<std::shared_ptr<const KvCodec>> layers) {
  return std::make_shared<LayeredCodec>(std::move(layers));
}

}  // namespace snug
