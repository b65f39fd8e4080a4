#pragma once
/// Lines of 64 tokens: predicted from others by a linear map, and what is left of them in integers around zero
/// (kernels/kv_predict.hpp).

#include "kernels/kv_predict.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

/// out[outputs][64] = bias + weights[outputs][inputs] in[inputs][64].
void predict_lines(const float* weights, const float* bias, std::size_t inputs, std::size_t outputs, const float* in,
                   float* out);

/// With the scale of least squared error: alternately the nearest codes for a scale and the best scale for the codes.
void pack_lines(const float* lines, std::size_t count, std::size_t bits, std::byte* out);

}  // namespace snug
