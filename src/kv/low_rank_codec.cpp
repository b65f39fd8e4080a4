#include "kv/low_rank_codec.hpp"

#include <algorithm>

#include "kv/rope_page.hpp"

namespace snug {

namespace {

/// Codes of keys lie [rank][64 tokens], of values [64 tokens][rank]: as the products want them.
class LowRankCodec final : public KvCodec {
public:
  LowRankCodec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& tables)
      : keys_(side == KvSide::keys), side_(side), model_(std::move(model)), ropes_(*model_) {
    const std::string name = side_name(side);
    for (std::size_t i = 0; i < model_->shapes.size(); ++i) {
      const KvShape& shape = model_->shapes[i];
      Layer layer{shape.kv_heads * shape.dim(side), low_rank(shape.kv_heads * shape.dim(side)), {}, {}, {}};
      const std::size_t c = layer.channels, r = layer.rank;
      if (c > 0) {
        layer.mean = tables.copy(i, name + ".mean", c);
        layer.down = tables.copy(i, name + ".down", r * c);
        layer.up = tables.copy(i, name + ".up", c * r);
        if (!keys_) {
          layer.down = transposed(layer.down, r, c);
          layer.up = by_heads(layer.up, shape.kv_heads, shape.dim(side), r);
        }
      }
      layers_.push_back(std::move(layer));
    }
  }

  std::size_t page_bytes(std::size_t layer) const override {
    return layers_[layer].rank * kPageTokens * sizeof(bf16_t);
  }
  Bytes table_bytes() const override {
    Bytes total = 0;
    for (const Layer& l : layers_) total += (l.mean.size() + l.down.size() + l.up.size()) * sizeof(float);
    return total;
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const Layer& l = layers_[place.layer];
    const KvShape& shape = model_->shapes[place.layer];
    const std::size_t dim = shape.dim(side_), c = l.channels;
    std::vector<float> x(kPageTokens * c), codes(kPageTokens * l.rank), rows(kPageTokens * dim);
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      const float* mean = &l.mean[head * dim];
      if (keys_) {
        float* lines = &x[head * dim * kPageTokens];
        ropes_.turn_back(place.layer, place.position, heads[head], lines);
        for (std::size_t i = 0; i < dim * kPageTokens; ++i) lines[i] -= mean[i / kPageTokens];
        continue;
      }
      kernels().tiles_to_lines(heads[head], page_lines(side_, dim), rows.data());
      for (std::size_t t = 0; t < kPageTokens; ++t)
        for (std::size_t d = 0; d < dim; ++d) x[t * c + head * dim + d] = rows[t * dim + d] - mean[d];
    }
    if (keys_)
      kernels().add_product(l.down.data(), x.data(), l.rank, c, kPageTokens, codes.data());
    else
      kernels().add_product(x.data(), l.down.data(), kPageTokens, c, l.rank, codes.data());
    kernels().to_bf16(codes.data(), codes.size(), reinterpret_cast<bf16_t*>(page));
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const Layer& l = layers_[place.layer];
    const std::size_t dim = model_->shapes[place.layer].dim(side_), count = kPageTokens * l.rank;
    thread_local std::vector<float> codes, lines;
    codes.resize(count);
    lines.resize(kPageTokens * dim);
    kernels().from_bf16(reinterpret_cast<const bf16_t*>(page), count, codes.data());
    const float *mean = &l.mean[head * dim], *up = &l.up[head * dim * l.rank];
    if (keys_) {
      for (std::size_t d = 0; d < dim; ++d) std::fill_n(&lines[d * kPageTokens], kPageTokens, mean[d]);
      kernels().add_product(up, codes.data(), dim, l.rank, kPageTokens, lines.data());
      return ropes_.turn(place.layer, place.position, lines.data(), tiles);
    }
    for (std::size_t t = 0; t < kPageTokens; ++t) std::copy_n(mean, dim, &lines[t * dim]);
    kernels().add_product(codes.data(), up, kPageTokens, l.rank, dim, lines.data());
    kernels().lines_to_tiles(lines.data(), page_lines(side_, dim), tiles);
  }

private:
  struct Layer {
    std::size_t channels, rank;
    std::vector<float> mean;
    std::vector<float> down;  ///< [rank][channels]; of values, [channels][rank]
    std::vector<float> up;    ///< [heads][dim][rank]; of values, [heads][rank][dim]
  };

  static std::vector<float> transposed(std::span<const float> m, std::size_t rows, std::size_t cols) {
    std::vector<float> out(m.size());
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < cols; ++c) out[c * rows + r] = m[r * cols + c];
    return out;
  }
  static std::vector<float> by_heads(std::span<const float> up, std::size_t heads, std::size_t dim, std::size_t rank) {
    std::vector<float> out;
    for (std::size_t h = 0; h < heads; ++h) {
      const std::vector<float> one = transposed(up.subspan(h * dim * rank, dim * rank), dim, rank);
      out.insert(out.end(), one.begin(), one.end());
    }
    return out;
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
