#pragma once
/// Low-rank channels (CSKV, arXiv 2409.10593): all heads' keys of a token (before rotation), or its values, as
/// coordinates in a subspace of fewer dimensions, learned per layer.
///
/// The subspace is the one that loses least of a text's keys and values, in closed form: of keys, the mean square of
/// the products with queries (kv/query_weights.hpp), of values, their squares. That is the minimum of what the paper
/// approaches by fine-tuning from a decomposition of the weights, so no descent follows. Means are kept apart.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

/// Throws FormatError when `learned` is not of such a model.
std::unique_ptr<KvCodec> make_low_rank_codec(KvSide side, std::shared_ptr<const KvModel> model,
                                             const KvTables& learned);

/// With C = kv_heads * dim channels and R = low_rank(C): "key.mean" f32[C], "key.down" f32[R][C], "key.up" f32[C][R]; a
/// token x becomes down (x - mean), and comes back as mean + up code. "value" alike.
KvTables learn_low_rank(const KvLearning& from);

/// Dimensions of the subspace.
constexpr std::size_t low_rank(std::size_t channels) {
  return channels / 2;
}

}  // namespace snug
