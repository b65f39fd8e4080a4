#pragma once
/// Coding of lines of 64 tokens in integers around zero (kernels/kv_predict.hpp).

#include "kernels/kv_predict.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

/// With the scale of least squared error: alternately the nearest codes for a scale and the best scale for the codes.
void pack_lines(const float* lines, std::size_t count, std::size_t bits, std::byte* out);

}  // namespace snug
