#pragma once
/// Pairs of layers of one shape in the upper half of the model share what they keep (MiniCache, arXiv 2405.14366): per
/// head and token one direction between theirs, each layer's length, and apart from that the tokens whose directions
/// differ most. The direction is kept with the lower layer's length on it, as bf16; a page of the upper layer holds a
/// factor per token.
///
/// Unlike in the paper, what is merged is what differs from the mean of the page (of keys: before rotation), which each
/// layer keeps: biases of keys are larger than all that tokens say, and differ from layer to layer.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

inline constexpr float kMergeTowardsUpper = 0.6f;  ///< where on the arc between the two directions
inline constexpr std::size_t kUnmergedTokens = 4;  ///< of a page of 64: the paper's 5%, rounded up

/// Of each layer, the layer it is merged with; itself: none.
std::vector<std::size_t> minicache_partners(const KvModel& model);

std::unique_ptr<KvCodec> make_minicache_codec(KvSide side, std::shared_ptr<const KvModel> model);

}  // namespace snug
