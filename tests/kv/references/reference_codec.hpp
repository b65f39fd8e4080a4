#pragma once
/// What slow, plain references of KV methods stand on: a codec whose coded page just keeps what the paper's method
/// makes of the page (in bf16, as attention reads it), computed in f32 by straightforward loops.

#include <cstring>
#include <vector>

#include "kv/kv_codec.hpp"
#include "kv/tile_rows.hpp"

namespace snug::reference {

inline float from_bf16(bf16_t x) {
  const std::uint32_t bits = std::uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline bf16_t to_bf16(float x) {
  bf16_t out;
  kernels().to_bf16(&x, 1, &out);
  return out;
}

/// One side of a page: f32[head][64 tokens][dim].
struct PlainPage {
  std::size_t heads, dim;
  std::vector<float> values;

  PlainPage(std::size_t head_count, std::size_t d) : heads(head_count), dim(d), values(head_count * kPageTokens * d) {}
  float& at(std::size_t head, std::size_t token, std::size_t d) {
    return values[(head * kPageTokens + token) * dim + d];
  }
};

class ReferenceCodec : public KvCodec {
public:
  ReferenceCodec(KvSide side, std::shared_ptr<const KvModel> model) : side_(side), model_(std::move(model)) {}

  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * head_values(layer) * sizeof(bf16_t);
  }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const std::size_t dim = model_->shapes[place.layer].dim(side_);
    PlainPage plain(model_->shapes[place.layer].kv_heads, dim);
    for_each(plain, [&](float& x, std::size_t head, std::size_t at) { x = from_bf16(heads[head][at]); });
    reconstruct(place, plain);
    auto* out = reinterpret_cast<bf16_t*>(page);
    for_each(plain, [&](float x, std::size_t head, std::size_t at) {
      out[head * head_values(place.layer) + at] = to_bf16(x);
    });
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const std::size_t values = head_values(place.layer);
    std::memcpy(tiles, page + head * values * sizeof(bf16_t), values * sizeof(bf16_t));
  }

protected:
  /// Puts in place of the page what comes back of it.
  virtual void reconstruct(KvPlace place, PlainPage& page) const = 0;
  KvSide side() const { return side_; }
  const KvModel& model() const { return *model_; }

private:
  std::size_t head_values(std::size_t layer) const { return kPageTokens * model_->shapes[layer].dim(side_); }
  template <class F>
  void for_each(PlainPage& page, F&& f) const {
    for (std::size_t head = 0; head < page.heads; ++head)
      for (std::size_t token = 0; token < kPageTokens; ++token)
        for (std::size_t d = 0; d < page.dim; ++d)
          f(page.at(head, token, d), head, tile_index(side_, token, d, page.dim));
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
};

}  // namespace snug::reference
