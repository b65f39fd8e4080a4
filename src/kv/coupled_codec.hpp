#pragma once
/// Coupled quantisation (CQ, arXiv 2405.03917): neighbouring channels share a code of 8 bits that stands for one of 256
/// centroids, learned per layer, head and group of channels; keys before rotation. The paper weighs errors by the
/// Fisher information, which takes gradients of the model; here those of a key channel are weighed by the mean square
/// of the queries that meet it, over all distances, and those of values alike.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

/// `width` channels share a code: 4 (2 bits a channel) or 8 (1 bit). Throws FormatError when `learned` is not of such a
/// model.
std::unique_ptr<KvCodec> make_coupled_codec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned,
                                            std::size_t width);

/// "key.centroids" f32[heads * groups][256][width] and "key.weights" f32[heads * dim], of each layer; "value" alike.
KvTables learn_coupled(const KvLearning& from, std::size_t width);

}  // namespace snug
