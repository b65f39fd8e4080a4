#pragma once
/// A codec for each layer.

#include <vector>

#include "kv/kv_codec.hpp"

namespace snug {

/// `layers`: of each layer; none couples layers (KvCodec::across_layers, chained).
std::shared_ptr<const KvCodec> make_layered_codec(std::vector<std::shared_ptr<const KvCodec>> layers);

}  // namespace snug
