// Activations to int8 (kernels/q8_rows.hpp).

#include <algorithm>
#include <cstring>

#include "kernels/kernels.hpp"
#include "kernels/simd/f32.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

/// Stores 16 values in [-127, 127] as bytes; returns their sum.
SNUG_INLINE std::int32_t store_bytes(I32x16 v, std::int8_t* out) {
  typedef std::int32_t Words __attribute__((vector_size(64)));
  typedef std::int8_t Bytes __attribute__((vector_size(16)));
  Words words;
  std::memcpy(&words, &v, sizeof(words));
  const Bytes bytes = __builtin_convertvector(words, Bytes);
  std::memcpy(out, &bytes, sizeof(bytes));
  typedef std::int32_t Half __attribute__((vector_size(32)));
  typedef std::int32_t Quarter __attribute__((vector_size(16)));
  Half halves[2];
  std::memcpy(halves, &words, sizeof(words));
  const Half half = halves[0] + halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, &half, sizeof(half));
  const Quarter quarter = quarters[0] + quarters[1];
  return quarter[0] + quarter[1] + quarter[2] + quarter[3];
}

/// Group `g` of a plane from 32 values, of which what is left over remains.
SNUG_INLINE void quantize_group(F32x16& a, F32x16& b, const Q8Plane& out, std::size_t g) {
  const float top = hmax(snug::SNUG_ISA_NS::max(abs(a), abs(b)));
  const F32x16 inverse = set1(top > 0 ? 127.0f / top : 0.0f);
  const F32x16 minus = set1(-(top / 127.0f));
  const I32x16 qa = to_i32(mul(a, inverse)), qb = to_i32(mul(b, inverse));
  a = fma(minus, to_f32(qa), a);
  b = fma(minus, to_f32(qb), b);
  const std::int32_t sums[2] = {store_bytes(qa, out.q + 32 * g), store_bytes(qb, out.q + 32 * g + 16)};
  out.scale[g] = top / 127.0f;
  out.scaled_sum[g] = out.scale[g] * static_cast<float>(sums[0] + sums[1]);
  out.negative_sum[2 * g] = -sums[0];
  out.negative_sum[2 * g + 1] = -sums[1];
}

/// The `count` groups with the largest scales (of equal ones the first), ascending.
void choose_groups(const float* scale, std::size_t groups, std::size_t count, std::uint32_t* out) {
  const auto larger = [scale](std::uint32_t a, std::uint32_t b) {
    return scale[a] != scale[b] ? scale[a] > scale[b] : a < b;
  };
  // A heap of the best so far, the least of them on top: most groups are turned away by one comparison.
  for (std::uint32_t g = 0; g < groups; ++g) {
    if (g < count) {
      out[g] = g;
      std::push_heap(out, out + g + 1, larger);
    } else if (scale[g] > scale[out[0]]) {
      std::pop_heap(out, out + count, larger);
      out[count - 1] = g;
      std::push_heap(out, out + count, larger);
    }
  }
  std::sort(out, out + count);
}

}  // namespace

void quantize(const float* x, const Q8Rows& out, std::size_t row) {
  const Q8Plane plane = out.plane(row), fine = out.fine(row);
  const std::size_t groups = out.k / 32;
  for (std::size_t g = 0; g < groups; ++g) {
    F32x16 a = load(x + 32 * g), b = load(x + 32 * g + 16);
    quantize_group(a, b, plane, g);
  }
  std::uint32_t* index = out.fine_index(row);
  choose_groups(plane.scale, groups, out.fine_groups(), index);
  index[out.fine_groups()] = Q8Rows::kNoGroup;
  for (std::size_t f = 0; f < out.fine_groups(); ++f) {
    F32x16 a = load(x + 32 * index[f]), b = load(x + 32 * index[f] + 16);
    quantize_group(a, b, plane, index[f]);  // once more, for what it leaves over
    quantize_group(a, b, fine, f);
  }
}

}  // namespace snug::SNUG_ISA_NS
