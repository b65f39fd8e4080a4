#pragma once
/// A row of weights that is used alone, not in a group of 16: int8 with one scale per 32 values.
///
/// A record of n values (n a multiple of 32) is int8 q[n], then bf16 scale[n/32]: 1.0625 bytes a value. Scales are
/// rounded up to bf16 before values are divided by them, so that short scales cost no accuracy of their own.

#include <cstddef>
#include <cstdint>

namespace snug {

struct Int8Row {
  const std::int8_t* q = nullptr;
  const std::byte* scales = nullptr;  ///< bf16[n/32], not aligned

  static constexpr std::size_t kGroup = 32;
  static constexpr std::size_t bytes_for(std::size_t n) { return n + n / kGroup * 2; }
  static Int8Row at(const std::byte* record, std::size_t n) {
    return {reinterpret_cast<const std::int8_t*>(record), record + n};
  }
  /// The row from value `begin` (a multiple of 32) on.
  Int8Row from(std::size_t begin) const { return {q + begin, scales + begin / kGroup * 2}; }
};

/// Writes x[n] as a record to `out`. Values that are not finite become 0.
void quantize_int8_row(const float* x, std::size_t n, std::byte* out);

}  // namespace snug
