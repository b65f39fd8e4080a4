#pragma once
/// Activations as int8: what every quantised product multiplies.
///
/// Per row of k values (k a multiple of 32): q = round(x / scale) in [-127, 127] with one scale = max|x| / 127 per 32
/// values (a "group"). Most of the error comes from the few groups that hold outliers, so the eighth of the groups with
/// the largest scales has a second, fine plane: what the first one left over, as int8 again. That is a third or less of
/// the divergence from f32 for an eighth more products, and it depends on the row alone.
///
/// A row record, stride bytes long, is one plane over k values, one over fine_k(k), then the groups of the fine plane
/// (u32 each, ascending, and kNoGroup). A plane of n values: int8 q[n] | f32 scale[n/32] | f32 scaled_sum[n/32] (scale
/// * sum of q) | i32 negative_sum[n/16] (minus the sum of q over 16 values): the sums are for types with an offset or a
/// minimum. The stride is an odd number of cache lines, so that many rows at the same k do not fall into one cache set.

#include <cstddef>
#include <cstdint>

namespace snug {

struct Q8Plane {
  std::int8_t* q;
  float* scale;
  float* scaled_sum;
  std::int32_t* negative_sum;

  static constexpr std::size_t bytes_for(std::size_t n) { return n + n / 32 * 8 + n / 16 * 4; }
  static Q8Plane at(std::byte* data, std::size_t n) {
    auto* scale = reinterpret_cast<float*>(data + n);
    return {reinterpret_cast<std::int8_t*>(data), scale, scale + n / 32,
            reinterpret_cast<std::int32_t*>(scale + n / 16)};
  }
};

struct Q8Rows {
  std::byte* data = nullptr;  ///< 64-byte aligned, rows * stride bytes
  std::size_t rows = 0, k = 0;

  static constexpr std::uint32_t kNoGroup = 0xFFFFFFFF;

  static constexpr std::size_t fine_groups_for(std::size_t k) { return k < 512 ? 1 : k / 256; }
  static constexpr std::size_t stride_for(std::size_t k) {
    const std::size_t fine = fine_groups_for(k);
    return ((Q8Plane::bytes_for(k) + Q8Plane::bytes_for(fine * 32) + fine * 4 + 4 + 63) / 64 | 1) * 64;
  }
  std::size_t stride() const { return stride_for(k); }
  std::size_t fine_groups() const { return fine_groups_for(k); }
  Q8Plane plane(std::size_t row) const { return Q8Plane::at(data + row * stride(), k); }
  Q8Plane fine(std::size_t row) const {
    return Q8Plane::at(data + row * stride() + Q8Plane::bytes_for(k), fine_groups() * 32);
  }
  std::uint32_t* fine_index(std::size_t row) const {
    return reinterpret_cast<std::uint32_t*>(data + row * stride() + Q8Plane::bytes_for(k) +
                                            Q8Plane::bytes_for(fine_groups() * 32));
  }
};

}  // namespace snug
