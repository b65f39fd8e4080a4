#pragma once
/// Tables that learned KV codecs need, learned from made-up keys, values and queries.

#include <filesystem>

#include "kv/kv_codec.hpp"
#include "support/random_values.hpp"
#include "support/temporary_folder.hpp"

namespace snug::testing_support {

/// Every method, pairs of methods, and methods by layer and by age.
inline std::vector<std::string> kv_names() {
  std::vector<std::string> names{"q8/kivi-2", "kivi-2,q8:1", "cq-1,bf16/csr-1:0-1", "q8,cq-1@256",
                                 "mikv-2,gear-4:0,kivi-2@300"};
  for (const KvMethod& method : kv_methods()) names.emplace_back(method.name);
  return names;
}

/// Writes what the method needs, if anything and if it is not there yet, beside model.path.
inline void learn_kv(std::string_view name, const KvModel& model) {
  const KvMethod& method = find_kv_method(name);
  if (!method.learn || std::filesystem::exists(kv_tables_path(model, name))) return;
  constexpr std::size_t kTokens = 512;
  std::vector<std::vector<bf16_t>> memory;
  std::vector<std::vector<float>> moments;
  KvSamples samples;
  samples.tokens = samples.context = kTokens;
  for (const KvShape& shape : model.shapes) {
    KvSamples::Layer layer;
    for (const KvSide side : {KvSide::keys, KvSide::values}) {
      const std::vector<float> x =
          random_values(kTokens * shape.kv_heads * shape.dim(side), static_cast<unsigned>(memory.size()));
      memory.emplace_back(x.size());
      kernels().to_bf16(x.data(), x.size(), memory.back().data());
      (side == KvSide::keys ? layer.keys : layer.values) = memory.back();
    }
    std::vector<float> queries(std::size_t{shape.kv_heads} * shape.k_dim * shape.k_dim);
    for (std::size_t i = 0; i < std::size_t{shape.kv_heads} * shape.k_dim; ++i)
      queries[i * shape.k_dim + i % shape.k_dim] = 1.0f + static_cast<float>(i % 7);
    moments.push_back(std::move(queries));
    layer.queries = moments.back();
    samples.layers.push_back(layer);
  }
  ThreadPool pool(2);
  method.learn({model, samples, pool}).write(kv_tables_path(model, name), model.fingerprint);
}

/// A format of a model whose file would lie at `path`, with what it needs learned.
inline KvFormat learned_format(std::string_view name, const KvModel& model, const std::string& path) {
  auto there = std::make_shared<KvModel>(model);
  there->path = path;
  const KvChoice choice = parse_kv_choice(name);
  for (const std::string& method : choice.methods()) learn_kv(method, *there);
  return make_kv_format(choice, there);
}

/// The same of layers of such shapes.
inline KvFormat format_of(std::string_view name, std::vector<KvShape> shapes) {
  const TemporaryFolder folder;
  KvModel model;
  model.shapes = std::move(shapes);
  model.ropes.resize(model.shapes.size());
  return learned_format(name, model, folder.file("m.gguf"));
}

}  // namespace snug::testing_support
