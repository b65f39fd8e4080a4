#pragma once
/// How much more (or less) coded keys scatter than the keys they stand for. Scores of scattered keys have a larger mean
/// of exp(score), by half of their variance: without that taken off (AttentionPart::k_excess), attention gives coded
/// tokens more or less than their share beside those in bf16. Means over pairs of rotated channels, so that it holds at
/// every position.

#include <vector>

#include "kv/kv_codec.hpp"

namespace snug {

inline constexpr const char* kKeyExcess = "key.excess";

/// Measures a keys' codec on the samples, into the array kKeyExcess of each layer, f32[kv_heads][k_dim].
void add_key_excess(const KvCodec& codec, const KvLearning& from, KvTables& tables);

}  // namespace snug
