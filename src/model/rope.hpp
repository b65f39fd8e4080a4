#pragma once
/// Rotary position embedding: frequencies and their scalings.

#include <span>
#include <string_view>

#include "model/config.hpp"

namespace snug {

/// inverse_frequency[i] = base^(-2 i / dim).
RopeTable plain_rope(std::uint32_t dim, double base);

/// As `{arch}.rope.*` and the tensors rope_freqs / rope_factors_* say: linear, YaRN (arXiv 2309.00071), llama-3 and
/// longrope scaling. Throws FormatError on an unknown scaling type.
RopeTable scaled_rope(const GgufFile& file, std::string_view architecture, std::uint32_t head_dim);

/// cos and sin of every pair at `position`, times the table's magnitude; f32[inverse_frequency.size()] each.
void rope_angles(const RopeTable& table, std::size_t position, float* cos, float* sin);

/// A small vector of the model (norm, bias, factors) as f32; throws FormatError unless it has `count` values.
std::vector<float> read_vector(const GgufFile& file, const GgufTensor& tensor, std::size_t count);

}  // namespace snug
