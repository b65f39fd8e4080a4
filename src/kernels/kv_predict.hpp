#pragma once
/// Lines of a page (f32[64 tokens] of a channel) in integers around zero: value = (code - (2^bits - 1) / 2) * scale.
/// In memory a line is bf16 scale, then units of 16 bytes: byte i of a unit holds, from the lowest bits up, the codes
/// of tokens i, 16 + i, ... of what the unit covers.

#include <cstddef>

namespace snug {

/// Of 2, 4 or 8 bits.
constexpr std::size_t line_code_bytes(std::size_t bits) {
  return 2 + 8 * bits;
}

}  // namespace snug
