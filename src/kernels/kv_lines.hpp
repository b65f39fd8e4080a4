#pragma once
/// A page of one head in f32, as codecs work on it: lines of keys are [dim][64 tokens], of values [64 tokens][dim].
/// In tiles (kv_tile.hpp) vectors of 32 values alternate between two lines.

#include <cstddef>

namespace snug {

struct KvLines {
  std::size_t pairs, vectors;  ///< pairs of lines; vectors of 16 values in a line
  /// Where vectors of a pair, and pairs, lie in the tiles (bf16 values).
  std::size_t vector_stride, pair_stride;

  constexpr std::size_t length() const { return vectors * 16; }
  constexpr std::size_t values() const { return 2 * pairs * length(); }
};

/// Rotation of a page's keys: pair i at the token with offset t turns by (cos, sin)[i] times (offset_cos, offset_sin)
/// [i][t], so that no angle is computed on the way.
struct KvRotation {
  std::size_t pairs = 0;                       ///< 0: keys are not rotated
  bool split_half = false;                     ///< pair i is (x[i], x[i + pairs]), else (x[2i], x[2i + 1])
  const float *cos = nullptr, *sin = nullptr;  ///< [pairs], of the page's first token, with the magnitude
  const float *offset_cos = nullptr, *offset_sin = nullptr;  ///< [pairs][64]
  float inverse_square = 1;                                  ///< 1 / magnitude^2
};

}  // namespace snug
