#pragma once
/// Block floating point pages of keys or values of one head: 4-bit mantissas (two's complement, biased by 8), and for
/// each token and block of channels the power of two that they count in. In memory:
///   rearranged: the block of each channel, u8[dim] (else channel c belongs to block c / 32)
///   exponents of f32 (0: all values are 0), u8: keys [tile][block][16 tokens], values [token][block]
///   mantissas in units of 16 bytes, which unpack to a vector of a tile (kv_tile.hpp): keys [tile][pair of dims], byte
///   = token; values [pair of tokens][16 dims], byte = dim. The lower half is the first of the pair.
/// What comes out is exact in bf16.

#include <cstddef>
#include <cstdint>

#include "kernels/kv_tile.hpp"

namespace snug {

struct KvBlocks {
  static constexpr std::size_t kBlock = 32, kTokens = 64, kMostBlocks = 16;

  bool keys;  ///< else values
  bool rearranged;
  std::size_t dim;  ///< a multiple of 16, at most kBlock * kMostBlocks

  constexpr std::size_t blocks() const { return (dim + kBlock - 1) / kBlock; }
  constexpr std::size_t exponents() const { return rearranged ? dim : 0; }
  constexpr std::size_t exponent_index(std::size_t token, std::size_t block) const {
    return keys ? (token / kTileTokens * blocks() + block) * kTileTokens + token % kTileTokens
                : token * blocks() + block;
  }
  constexpr std::size_t mantissas() const { return exponents() + kTokens * blocks(); }
  constexpr std::size_t bytes() const { return mantissas() + kTokens * dim / 2; }
  /// Byte of a mantissa, and whether it is the upper half.
  constexpr std::size_t mantissa_byte(std::size_t token, std::size_t channel) const {
    return keys ? (token / kTileTokens * (dim / 2) + channel / 2) * kTileTokens + token % kTileTokens
                : token / 2 * dim + channel;
  }
  constexpr bool upper(std::size_t token, std::size_t channel) const { return (keys ? channel : token) % 2 != 0; }
};

}  // namespace snug
