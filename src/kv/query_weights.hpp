#pragma once
/// How much errors of keys before rotation matter: the mean square of the products with queries that they cause.
/// Rotation by the distance between query and key mixes channels; moments here are means over distances.

#include <vector>

#include "kv/kv_learning.hpp"

namespace snug {

/// One head's f32[k_dim][k_dim]: the mean over distances of the queries' second moments, turned by the distance.
std::vector<float> query_moments(const KvLearning& from, std::size_t layer, std::size_t head);

/// f32[kv_heads * k_dim]: their diagonals in shares of their means, none of them less than a thousandth.
std::vector<float> query_weights(const KvLearning& from, std::size_t layer);

}  // namespace snug
