#include "kv/kv_learning.hpp"

#include <bit>

namespace snug {

std::vector<float> floats_of(std::span<const bf16_t> samples, std::size_t begin, std::size_t end) {
  std::vector<float> out(end - begin);
  for (std::size_t i = begin; i < end; ++i) out[i - begin] = std::bit_cast<float>(std::uint32_t{samples[i]} << 16);
  return out;
}

}  // namespace snug
