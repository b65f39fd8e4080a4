#pragma once
/// A head's page of 64 keys or values of which 16 tokens are kept as they are and the others in 2 bits (MiKV): a bit
/// for each token, set when it is kept; of keys, f32[dim] how much more they scatter than those that they stand for,
/// and bf16[dim] each, what channels are multiplied by when they are read and what is added then; the kept tokens,
/// bf16[16][dim]; then of each other token, per group of 32 channels, bf16 scale and least value and a word of 32 bits
/// for each 16 channels, with their codes from the lowest bits up.

#include <cstddef>
#include <cstdint>

namespace snug {

struct KvMixed {
  static constexpr std::size_t kGroup = 32, kKept = 16, kCoded = 64 - kKept;
  std::size_t dim;  ///< a multiple of 16
  bool keys;

  static constexpr std::size_t excess() { return 8; }
  constexpr std::size_t factors() const { return excess() + dim * 4; }
  constexpr std::size_t means() const { return factors() + dim * 2; }
  constexpr std::size_t kept() const { return keys ? means() + dim * 2 : excess(); }
  constexpr std::size_t codes() const { return kept() + kKept * dim * 2; }
  constexpr std::size_t token_bytes() const { return (dim + kGroup - 1) / kGroup * 4 + dim / 4; }
  constexpr std::size_t bytes() const { return (codes() + kCoded * token_bytes() + 7) / 8 * 8; }
};

}  // namespace snug
