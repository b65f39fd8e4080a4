// Every codec is as near to a page as the slow, plain reference of its paper; and what it codes is what comes out.

#include "kv/references/references.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support/kv_learning.hpp"
#include "support/temporary_folder.hpp"

namespace snug::reference {
namespace {

std::shared_ptr<const KvModel> some_model(const std::string& path) {
  auto model = std::make_shared<KvModel>();
  model->path = path;
  model->shapes = {{2, 64, 64, 0, 3}, {3, 96, 32, 0}};
  model->ropes.resize(model->shapes.size());
  model->ropes[0] = {{1.0, 0.1, 0.01, 0.001}, 1.2f, true};
  model->ropes[1] = {std::vector<double>(48, 0.3), 1, false};
  return model;
}

/// One side of a page when it is coded: tiles of all heads as attention meets them: channels of their own mean and
/// size, a few of them far larger, and neighbouring tokens alike.
class RandomPage {
public:
  RandomPage(KvSide side, const KvShape& shape, unsigned seed)
      : values(shape.kv_heads * kPageTokens * shape.dim(side)), queries_(kObservedTokens * shape.query_values()) {
    const std::size_t dim = shape.dim(side);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      bf16_t* tiles = values.data() + head * kPageTokens * dim;
      for (std::size_t d = 0; d < dim; ++d) {
        const float size = d % 29 == 3 ? 20.0f : std::exp(0.5f * normal(random)), mean = normal(random) * size;
        float drift = 0;
        for (std::size_t token = 0; token < kPageTokens; ++token) {
          drift = 0.8f * drift + 0.6f * normal(random);
          tiles[tile_index(side, token, d, dim)] = to_bf16(mean + size * drift);
        }
      }
      heads.push_back(tiles);
    }
    for (std::size_t i = 0; i < queries_.size(); ++i)
      queries_[i] = to_bf16(0.1f * static_cast<float>(1 + i % 5) * normal(random));
    if (side == KvSide::values) keys_ = std::make_unique<RandomPage>(KvSide::keys, shape, seed + 100);
  }
  /// With what may be observed of it.
  KvPlace place(std::size_t layer, std::size_t position) const {
    return {layer, position, {queries_.data(), keys_ ? keys_->heads.data() : heads.data()}};
  }
  std::vector<bf16_t> values;
  std::vector<const bf16_t*> heads;

private:
  std::vector<bf16_t> queries_;
  std::unique_ptr<RandomPage> keys_;  ///< of values
};

std::vector<bf16_t> decoded(const KvCodec& codec, const KvShape& shape, KvSide side, KvPlace place,
                            const std::byte* page) {
  const std::size_t each = kPageTokens * shape.dim(side);
  std::vector<bf16_t> tiles(shape.kv_heads * each);
  for (std::size_t head = 0; head < shape.kv_heads; ++head) codec.decode(place, head, page, tiles.data() + head * each);
  return tiles;
}

/// Mean squared error, in shares of the values' mean square.
double error_of(const std::vector<bf16_t>& tiles, const RandomPage& page) {
  double error = 0, all = 0;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const double x = from_bf16(page.values[i]), off = from_bf16(tiles[i]) - x;
    error += off * off;
    all += x * x;
  }
  return error / all;
}

template <class F>
void for_each_case(F&& f) {
  const testing_support::TemporaryFolder folder;
  const auto model = some_model(folder.file("m.gguf"));
  for (const KvReference& row : kReferences)
    for (const KvSide side : {KvSide::keys, KvSide::values}) {
      testing_support::learn_kv(row.method, *model);
      const KvFormat format = make_kv_format(parse_kv_choice(row.method), model);
      const KvCodec& codec = side == KvSide::keys ? *format.keys : *format.values;
      if (format.couples_layers()) continue;  // layers_test.cpp
      for (std::size_t layer = 0; layer < model->shapes.size(); ++layer) {
        SCOPED_TRACE(std::string(row.method) + (side == KvSide::keys ? " keys" : " values"));
        f(row, *row.make(side, model), codec, model->shapes[layer], side, layer);
      }
    }
}

TEST(KvReferencesTest, CodecsLoseWhatTheirMethodLoses) {
  for_each_case([](const KvReference& row, const KvCodec& reference, const KvCodec& codec, const KvShape& shape,
                   KvSide side, std::size_t layer) {
    double ours = 0, theirs = 0;
    for (unsigned seed = 0; seed < 4; ++seed) {
      const RandomPage page(side, shape, seed);
      const KvPlace place = page.place(layer, seed * kPageTokens);
      std::vector<std::byte> coded(codec.page_bytes(layer)), plain(reference.page_bytes(layer));
      codec.encode(place, page.heads.data(), coded.data());
      reference.encode(place, page.heads.data(), plain.data());
      ours += error_of(decoded(codec, shape, side, place, coded.data()), page);
      theirs += error_of(decoded(reference, shape, side, place, plain.data()), page);
    }
    // Scales are bf16, and so is what comes out: each adds up to 2^-9 of a value.
    EXPECT_LE(ours, row.slack * theirs + 4e-5);
  });
}

TEST(KvReferencesTest, ADamagedPageComesOutDifferent) {
  for_each_case([](const KvReference&, const KvCodec&, const KvCodec& codec, const KvShape& shape, KvSide side,
                   std::size_t layer) {
    const RandomPage page(side, shape, 7);
    std::vector<std::byte> coded(codec.page_bytes(layer));
    codec.encode(page.place(layer, 0), page.heads.data(), coded.data());
    const std::vector<bf16_t> sound = decoded(codec, shape, side, {layer, 0}, coded.data());
    for (std::byte& x : coded) x ^= std::byte{0x11};
    EXPECT_NE(decoded(codec, shape, side, {layer, 0}, coded.data()), sound);
  });
}

}  // namespace
}  // namespace snug::reference
