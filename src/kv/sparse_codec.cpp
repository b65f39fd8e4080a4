#include "kv/sparse_codec.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "kv/rope_page.hpp"

namespace snug {

namespace {

/// The magnitudes that 5 bits choose from, in shares of the largest.
const std::array<float, 32>& magnitudes() {
  static const auto table = [] {
    std::array<float, 32> t{};
    for (std::size_t i = 0; i < t.size(); ++i) t[i] = std::exp2(-static_cast<float>(i) / 4);
    return t;
  }();
  return table;
}

std::uint16_t code_of(std::size_t atom, float coefficient, float largest) {
  const float share = std::abs(coefficient) / largest;
  const float step = share > 0 ? std::round(-4 * std::log2(share)) : 31.0f;
  const auto magnitude = static_cast<unsigned>(std::clamp(step, 0.0f, 31.0f));
  return static_cast<std::uint16_t>(atom << 6 | (coefficient < 0 ? 32u : 0u) | magnitude);
}

class SparseCodec final : public KvCodec {
public:
  SparseCodec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& tables)
      : side_(side), model_(std::move(model)), ropes_(*model_) {
    const std::string name = side_name(side);
    for (std::size_t i = 0; i < model_->shapes.size(); ++i) {
      const KvShape& shape = model_->shapes[i];
      const std::size_t dim = shape.dim(side), channels = shape.kv_heads * dim;
      Layer layer;
      if (channels > 0) {
        const auto copy = [&](const char* what, std::size_t count) { return tables.copy(i, name + what, count); };
        layer = {copy(".atoms", kAtoms * dim), copy(".mean", channels), copy(".factor", channels),
                 copy(".largest", 1)[0]};
      }
      layers_.push_back(std::move(layer));
    }
  }

  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * head_codes(layer) * sizeof(std::uint16_t);
  }
  Bytes table_bytes() const override {
    Bytes total = 0;
    for (const Layer& l : layers_) total += (l.atoms.size() + l.mean.size() + l.factor.size()) * sizeof(float);
    return total;
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const Layer& l = layers_[place.layer];
    const std::size_t dim = model_->shapes[place.layer].dim(side_);
    Pursuit pursuit(l.atoms.data(), dim, l.largest);
    std::vector<float> lines(kPageTokens * dim);
    auto* codes = reinterpret_cast<std::uint16_t*>(page);
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head) {
      ropes_.channels_of(side_, place.layer, place.position, heads[head], lines.data());
      for (std::size_t i = 0; i < lines.size(); ++i) {
        const std::size_t channel = head * dim + i / kPageTokens;
        lines[i] = (lines[i] - l.mean[channel]) * l.factor[channel];
      }
      pursuit.run(lines.data(), codes + head * head_codes(place.layer));
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const Layer& l = layers_[place.layer];
    const std::size_t dim = model_->shapes[place.layer].dim(side_);
    const auto* codes = reinterpret_cast<const std::uint16_t*>(page) + head * head_codes(place.layer);
    const float *mean = &l.mean[head * dim], *factor = &l.factor[head * dim];
    std::vector<float> rows(kPageTokens * dim);
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      float* row = &rows[t * dim];
      for (std::size_t i = 0; i < dim / kAtomChannels; ++i) {
        const std::uint16_t code = codes[i * kPageTokens + t];
        kernels().axpy(row, Pursuit::coefficient(code, l.largest), &l.atoms[Pursuit::atom(code) * dim], dim);
      }
      for (std::size_t d = 0; d < dim; ++d) row[d] = row[d] / factor[d] + mean[d];
    }
    if (side_ == KvSide::values) return kernels().lines_to_tiles(rows.data(), page_lines(side_, dim), tiles);
    std::vector<float> lines(rows.size());
    for (std::size_t i = 0; i < lines.size(); ++i) lines[i] = rows[i % kPageTokens * dim + i / kPageTokens];
    ropes_.turn(place.layer, place.position, lines.data(), tiles);
  }

private:
  struct Layer {
    std::vector<float> atoms, mean, factor;
    float largest = 1;
  };
  std::size_t head_codes(std::size_t layer) const {
    return model_->shapes[layer].dim(side_) / kAtomChannels * kPageTokens;
  }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
  RopePages ropes_;
  std::vector<Layer> layers_;
};

}  // namespace

float Pursuit::coefficient(std::uint16_t code, float largest) {
  const float magnitude = magnitudes()[code & 31] * largest;
  return code & 32 ? -magnitude : magnitude;
}

Pursuit::Pursuit(const float* atoms, std::size_t dim, float largest)
    : atoms_(atoms), dim_(dim), largest_(largest), products_(kAtoms * kPageTokens) {}

void Pursuit::run(float* x, std::uint16_t* codes) {
  for (std::size_t i = 0; i < dim_ / kAtomChannels; ++i) {
    std::fill(products_.begin(), products_.end(), 0.0f);
    kernels().add_product(atoms_, x, kAtoms, dim_, kPageTokens, products_.data());
    float best[kPageTokens] = {};
    std::uint32_t chosen[kPageTokens] = {};
    for (std::uint32_t a = 0; a < kAtoms; ++a)
      for (std::size_t t = 0; t < kPageTokens; ++t) {
        const float product = products_[a * kPageTokens + t];
        const bool better = std::abs(product) > std::abs(best[t]);
        best[t] = better ? product : best[t];
        chosen[t] = better ? a : chosen[t];
      }
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      const std::uint16_t code = code_of(chosen[t], best[t], largest_);
      const float coefficient_now = coefficient(code, largest_);
      for (std::size_t d = 0; d < dim_; ++d) x[d * kPageTokens + t] -= coefficient_now * atoms_[chosen[t] * dim_ + d];
      codes[i * kPageTokens + t] = code;
    }
  }
}

std::unique_ptr<KvCodec> make_sparse_codec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned) {
  return std::make_unique<SparseCodec>(side, std::move(model), learned);
}

}  // namespace snug
