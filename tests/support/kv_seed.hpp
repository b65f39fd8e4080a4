#pragma once
/// The small KV store whose saved form seeds the fuzz corpus.

#include <memory>
#include <vector>

#include "kv/kv_store.hpp"

namespace snug::testing_support {

inline const std::vector<KvShape> kSeedShapes{{1, 16, 16, 0}, {}, {2, 16, 32, 64}};
inline constexpr std::size_t kSeedRecurrent = 64, kSeedTokens = 600;
inline constexpr std::uint64_t kSeedModel = 7;

inline KvFormat seed_format() {
  auto model = std::make_shared<KvModel>();
  model->shapes = kSeedShapes;
  model->ropes.resize(kSeedShapes.size());
  return make_kv_format(parse_kv_choice("q8,q4@256"), model);
}

}  // namespace snug::testing_support
