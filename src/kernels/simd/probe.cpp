// What this machine can do at most: the figures that speeds are held against.

#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

std::uint64_t read_memory(const std::byte* data, std::size_t bytes) {
  U32x16 sums[8] = {};
  for (std::size_t at = 0; at + 512 <= bytes; at += 512)
    for (std::size_t i = 0; i < 8; ++i) sums[i] ^= load_u32(data + at + 64 * i);
  U32x16 all{};
  for (const U32x16 sum : sums) all ^= sum;
  std::uint64_t result = 0;
  for (std::size_t lane = 0; lane < 16; ++lane) result ^= all[lane];
  return result;
}

std::uint64_t int8_dots(std::size_t iterations) {
  constexpr std::size_t kChains = 12;
  const std::int8_t four[4] = {1, -1, 2, 3};
  I32x16 sums[kChains];
  for (std::size_t c = 0; c < kChains; ++c)
    sums[c] = as_i32(splat(static_cast<std::uint32_t>(c)));  // else they are merged
  const U32x16 w = splat(0x01020304u);
  for (std::size_t i = 0; i < iterations; ++i) {
    SNUG_UNROLL(12)
    for (std::size_t c = 0; c < kChains; ++c) sums[c] = dot_unsigned(sums[c], w, four);
  }
  std::int32_t lanes[kChains][16];
  std::memcpy(lanes, sums, sizeof(lanes));
  asm volatile("" ::"r"(&lanes[0][0]) : "memory");
  return std::uint64_t{2} * 64 * kChains * iterations;
}

}  // namespace snug::SNUG_ISA_NS
