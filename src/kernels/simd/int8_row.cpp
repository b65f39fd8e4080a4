/// Products with single rows of int8 weights (kernels/int8_row.hpp). Within a group of 32 the scale is left out of the
/// sum and applied once.

#include "kernels/kernels.hpp"
#include "kernels/simd/bytes.hpp"

namespace snug::SNUG_ISA_NS {
namespace {

SNUG_INLINE F32x16 scale_of(const Int8Row& row, std::size_t group) {
  std::uint16_t bits;
  __builtin_memcpy(&bits, row.scales + 2 * group, 2);
  return set1(__builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16));
}

}  // namespace

float dot_int8(const float* x, Int8Row y, std::size_t n) {
  const auto product = [&](std::size_t i) {
    return fma(to_f32(load_i8(y.q + i + 16)), load(x + i + 16), mul(to_f32(load_i8(y.q + i)), load(x + i)));
  };
  F32x16 even = zero(), odd = zero();
  std::size_t i = 0;
  for (; i + 64 <= n; i += 64) {
    even = fma(product(i), scale_of(y, i / 32), even);
    odd = fma(product(i + 32), scale_of(y, i / 32 + 1), odd);
  }
  if (i < n) even = fma(product(i), scale_of(y, i / 32), even);
  return hsum(add(even, odd));
}

void axpy_int8(float* x, float a, Int8Row y, std::size_t n) {
  const F32x16 factor = set1(a);
  for (std::size_t i = 0; i < n; i += 32) {
    const F32x16 scale = mul(factor, scale_of(y, i / 32));
    store(x + i, fma(to_f32(load_i8(y.q + i)), scale, load(x + i)));
    store(x + i + 16, fma(to_f32(load_i8(y.q + i + 16)), scale, load(x + i + 16)));
  }
}

}  // namespace snug::SNUG_ISA_NS
