#pragma once
/// What a bf16 stands for.

#include <bit>
#include <cstdint>

namespace snug::testing_support {

inline float bf16_value(std::uint16_t x) {
  return std::bit_cast<float>(std::uint32_t{x} << 16);
}

}  // namespace snug::testing_support
