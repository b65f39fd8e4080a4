#pragma once
/// Activations as int8: what every quantised product multiplies.
///
/// Per row of k values (k a multiple of 32): q = round(x / scale) in [-127, 127] with one scale = max|x| / 127 per 32
/// values. Beside them the sums that types with an offset or a minimum need. A row record, stride bytes long: int8 q[k]
/// | f32 scale[k/32] | f32 scaled_sum[k/32] (scale * sum of q) | i32 negative_sum[k/16] (minus the sum of q over 16
/// values). The stride is an odd number of cache lines, so that many rows at the same k do not fall into one cache set.

#include <cstddef>
#include <cstdint>

namespace snug {

struct Q8Rows {
  std::byte* data = nullptr;  ///< 64-byte aligned, rows * stride bytes
  std::size_t rows = 0, k = 0;

  static constexpr std::size_t stride_for(std::size_t k) {
    const std::size_t lines = (k + k / 32 * 8 + k / 16 * 4 + 63) / 64;
    return (lines | 1) * 64;
  }
  std::size_t stride() const { return stride_for(k); }
  std::int8_t* q(std::size_t row) const { return reinterpret_cast<std::int8_t*>(data + row * stride()); }
  float* scale(std::size_t row) const { return reinterpret_cast<float*>(data + row * stride() + k); }
  float* scaled_sum(std::size_t row) const { return scale(row) + k / 32; }
  std::int32_t* negative_sum(std::size_t row) const {
    return reinterpret_cast<std::int32_t*>(scaled_sum(row) + k / 32);
  }
};

}  // namespace snug
