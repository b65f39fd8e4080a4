#pragma once
/// A reference of a method that couples layers: all layers' pages become what the method makes of them.

#include "kv/references/reference_codec.hpp"

namespace snug::reference {

class LayersReference : public ReferenceCodec {
public:
  using ReferenceCodec::ReferenceCodec;
  bool across_layers() const override { return true; }

  void encode_layers(const KvLayerPages& pages) const override {
    std::vector<PlainPage> layers;
    for (std::size_t layer = 0; layer < pages.tiles.size(); ++layer) layers.push_back(page_of(pages, side(), layer));
    reconstruct_layers(pages, layers);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      PlainPage& page = layers[layer];
      auto* out = reinterpret_cast<bf16_t*>(pages.coded(side(), layer));
      for (std::size_t head = 0; head < page.heads; ++head, out += kPageTokens * page.dim)
        tiles_of_rows(side(), &page.at(head, 0, 0), page.dim, out);
    }
  }

protected:
  /// `layers` that are not there have no heads.
  virtual void reconstruct_layers(const KvLayerPages& pages, std::vector<PlainPage>& layers) const = 0;
  void reconstruct(KvPlace, PlainPage&) const override {}

  PlainPage page_of(const KvLayerPages& pages, KvSide of, std::size_t layer) const {
    const KvShape& shape = model().shapes[layer];
    PlainPage page(pages.tiles[layer] ? shape.kv_heads : 0, shape.dim(of));
    for (std::size_t head = 0; head < page.heads; ++head)
      rows_of_tiles(of, pages.tiles[layer] + shape.offset(of, head), page.dim, &page.at(head, 0, 0));
    return page;
  }
};

}  // namespace snug::reference
