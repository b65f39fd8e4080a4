#pragma once
/// Options of a tiny model whose KV pages are coded by any method, learned ones too.

#include "model/model.hpp"
#include "support/kv_learning.hpp"
#include "support/temporary_folder.hpp"

namespace snug::testing_support {

/// What the codec needs is learned, once per folder.
inline ModelOptions with_kv(ModelOptions options, std::string_view kv, const TemporaryFolder& folder) {
  if (kv.empty()) return options;
  options.kv_format = [name = std::string(kv), path = folder.file("tiny.gguf")](const auto& known) {
    return learned_format(name, *known, path);
  };
  return options;
}

}  // namespace snug::testing_support
