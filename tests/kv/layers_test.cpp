// Codecs that work across layers: held against their references on layers that resemble each other; other pages come
// out different.

#include <gtest/gtest.h>

#include <random>

#include "kv/kv_store.hpp"
#include "kv/references/references.hpp"
#include "support/temporary_folder.hpp"

namespace snug::reference {
namespace {

/// Two kinds of layers, by turns; the lower half stands for layers that stay by themselves.
std::shared_ptr<const KvModel> layered_model(const std::string& path) {
  const KvShape plain{2, 64, 64, 0}, window{1, 96, 32, 512};
  auto model = std::make_shared<KvModel>();
  for (std::size_t layer = 0; layer < 12; ++layer) model->shapes.push_back(layer % 3 == 2 ? window : plain);
  model->path = path;
  for (const KvShape& shape : model->shapes)
    model->ropes.push_back(shape.window ? KvRope{std::vector<double>(48, 0.3), 1, false}
                                        : KvRope{{1.0, 0.1, 0.01, 0.001}, 1.2f, true});
  return model;
}

/// Pages of all layers, each like the one below with something of its own; tokens and channels of differing size.
std::vector<std::vector<bf16_t>> alike_layers(const KvModel& model, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> common(64 * 256);
  for (float& x : common) x = normal(random);
  std::vector<std::vector<bf16_t>> layers;
  for (const KvShape& shape : model.shapes) {
    for (float& x : common) x = 0.9f * x + 0.4f * normal(random);
    std::vector<bf16_t> page(shape.page_bytes() / sizeof(bf16_t));
    for (const KvSide side : {KvSide::keys, KvSide::values})
      for (std::size_t head = 0; head < shape.kv_heads; ++head) {
        const std::size_t dim = shape.dim(side);
        std::vector<float> rows(kPageTokens * dim);
        for (std::size_t i = 0; i < rows.size(); ++i)
          rows[i] = common[(i + head * 37 + (side == KvSide::keys ? 0 : 5000)) % common.size()] *
                    (i % dim % 29 == 3 ? 20.0f : 1.0f) * (i / dim == 5 ? 0.1f : 1.0f);
        tiles_of_rows(side, rows.data(), dim, page.data() + shape.offset(side, head));
      }
    layers.push_back(std::move(page));
  }
  return layers;
}

/// Writes what a method learns from such layers.
void learn(const KvMethod& method, const KvModel& model) {
  if (!method.learn) return;
  constexpr std::size_t kPages = 8;
  std::vector<std::vector<std::vector<bf16_t>>> pages;
  for (unsigned seed = 100; seed < 100 + kPages; ++seed) pages.push_back(alike_layers(model, seed));
  KvSamples samples;
  samples.tokens = samples.context = kPages * kPageTokens;
  std::vector<std::vector<bf16_t>> memory;
  for (std::size_t layer = 0; layer < model.shapes.size(); ++layer) {
    const KvShape& shape = model.shapes[layer];
    KvSamples::Layer& out = samples.layers.emplace_back();
    for (const KvSide side : {KvSide::keys, KvSide::values}) {
      std::vector<bf16_t> rows;
      for (std::size_t token = 0; token < samples.tokens; ++token)
        for (std::size_t head = 0; head < shape.kv_heads; ++head)
          for (std::size_t d = 0; d < shape.dim(side); ++d)
            rows.push_back(pages[token / kPageTokens][layer]
                                [shape.offset(side, head) + tile_index(side, token % kPageTokens, d, shape.dim(side))]);
      memory.push_back(std::move(rows));
      (side == KvSide::keys ? out.keys : out.values) = memory.back();
    }
  }
  ThreadPool pool(2);
  method.learn({model, samples, pool}).write(kv_tables_path(model, method.name), model.fingerprint);
}

/// A store with one page coded, the second, read back layer by layer.
struct Coded {
  Coded(const KvFormat& format, const KvModel& model, const std::vector<std::vector<bf16_t>>& layers)
      : pools(ledger, model.shapes, format), store(pools, 64), shapes(model.shapes) {
    store.reserve((kFirstPages + kRecentPages + 1) * kPageTokens + 1);
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      std::copy(layers[layer].begin(), layers[layer].end(), store.key_tile(layer, 0, kPageTiles));
    if (format.late()) store.encode_late(pool, 2);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) store.prepare(pool, layer, 2);
  }
  std::vector<bf16_t> read(std::size_t layer) {
    const KvShape& shape = shapes[layer];
    std::vector<bf16_t> memory(kPartPages * shape.head_values()), excess(kPartTiles * shape.k_dim), out;
    store.prepare(pool, layer, 2);
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      KvStore::PartTiles tiles;
      store.part(layer, head, 0, 2 * kPageTokens, tiles);
      const KvStore::DecodeRoom room = {memory.data(), excess.data(), false};
      store.coded_part(layer, head, 0, 2, room, tiles);
      if (tiles.coded_keys) store.decode_page(layer, head, 1, KvSide::keys, room);
      if (tiles.coded_values) store.decode_page(layer, head, 1, KvSide::values, room);
      out.insert(out.end(), tiles.keys[kPageTiles], tiles.keys[kPageTiles] + kPageTokens * shape.k_dim);
      out.insert(out.end(), tiles.values[kPageTiles], tiles.values[kPageTiles] + kPageTokens * shape.v_dim);
    }
    return out;
  }
  Ledger ledger{Ledger::kUnlimited};
  ThreadPool pool{2};
  KvPools pools;
  KvStore store;
  std::vector<KvShape> shapes;
};

double error_of(const std::vector<bf16_t>& a, const std::vector<bf16_t>& b) {
  double error = 0, all = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = from_bf16(a[i]), y = from_bf16(b[i]);
    error += (x - y) * (x - y);
    all += y * y;
  }
  return error / all;
}

template <class F>
void for_each_method(F&& f) {
  const testing_support::TemporaryFolder folder;
  const auto model = layered_model(folder.file("m.gguf"));
  for (const KvReference& row : kReferences) {
    if (row.method != "minicache" && row.method != "aqua-2") continue;
    learn(find_kv_method(row.method), *model);
    const KvFormat format = make_kv_format(parse_kv_choice(row.method), model);
    EXPECT_TRUE(format.couples_layers());
    SCOPED_TRACE(row.method);
    f(row, format, *model);
  }
}

TEST(LayersTest, LoseWhatTheirMethodLoses) {
  for_each_method([](const KvReference& row, const KvFormat& format, const KvModel& model) {
    const auto shared = std::make_shared<KvModel>(model);
    const auto layers = alike_layers(model, 3);
    Coded ours(format, model, layers),
        theirs({"reference", row.make(KvSide::keys, shared), row.make(KvSide::values, shared)}, model, layers);
    double our_loss = 0, their_loss = 0;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      our_loss += error_of(ours.read(layer), layers[layer]);
      their_loss += error_of(theirs.read(layer), layers[layer]);
    }
    EXPECT_GT(their_loss, 0);
    EXPECT_LE(our_loss, row.slack * their_loss + 4e-5);
  });
}

TEST(LayersTest, EveryLayerIsReadWhateverTheOrder) {
  for_each_method([](const KvReference&, const KvFormat& format, const KvModel& model) {
    const auto layers = alike_layers(model, 4);
    Coded coded(format, model, layers);
    std::vector<std::vector<bf16_t>> upwards;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) upwards.push_back(coded.read(layer));
    for (const std::size_t layer : {3u, 9u, 0u, 11u, 5u}) EXPECT_EQ(coded.read(layer), upwards[layer]) << layer;
    Coded other(format, model, alike_layers(model, 5));
    for (std::size_t layer = 0; layer < layers.size(); ++layer) EXPECT_NE(other.read(layer), upwards[layer]) << layer;
  });
}

}  // namespace
}  // namespace snug::reference
