// Activations to int8 (kernels/q8_rows.hpp).

#include <algorithm>
#include <cstring>

#include "kernels/kernels.hpp"
#include "kernels/simd/bytes.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

/// 16 groups quantised together: most of the work on one group would be sums and maxima across lanes.
struct alignas(64) Batch {
  static constexpr std::size_t kGroups = 16;
  std::int8_t q[kGroups * 32];
  float scale[kGroups], scaled_sum[kGroups];
  std::int32_t negative_sum[kGroups * 2];
};

void quantize_batch(const float* x, Batch& out) {
  F32x16 largest[Batch::kGroups];
  for (std::size_t g = 0; g < Batch::kGroups; ++g)
    largest[g] = snug::SNUG_ISA_NS::max(abs(load(x + 32 * g)), abs(load(x + 32 * g + 16)));
  const F32x16 top = max_of_each(largest);
  alignas(64) float inverse[Batch::kGroups];
  store(inverse, select(less(zero(), top), div(set1(127.0f), top), zero()));
  store(out.scale, div(top, set1(127.0f)));
  for (std::size_t g = 0; g < Batch::kGroups; ++g)
    for (std::size_t i = 32 * g; i < 32 * g + 32; i += 16)
      store_i8(out.q + i, to_i32(mul(load(x + i), set1(inverse[g]))));
  for (std::size_t i = 0; i < 2 * Batch::kGroups; i += 16) store_negative_sums(out.q + 16 * i, out.negative_sum + i);
  for (std::size_t g = 0; g < Batch::kGroups; ++g)
    out.scaled_sum[g] = out.scale[g] * -static_cast<float>(out.negative_sum[2 * g] + out.negative_sum[2 * g + 1]);
}

/// The first `count` groups of a batch as groups [first, first + count) of a plane.
void put(const Batch& batch, const Q8Plane& plane, std::size_t first, std::size_t count) {
  std::copy_n(batch.q, 32 * count, plane.q + 32 * first);
  std::copy_n(batch.scale, count, plane.scale + first);
  std::copy_n(batch.scaled_sum, count, plane.scaled_sum + first);
  std::copy_n(batch.negative_sum, 2 * count, plane.negative_sum + 2 * first);
}

/// What the first plane leaves over of group `g`.
void put_remainder(const float* x, const Q8Plane& plane, std::size_t g, float* out) {
  const F32x16 minus = set1(-plane.scale[g]);
  for (std::size_t i = 0; i < 32; i += 16)
    store(out + i, fma(minus, to_f32(load_i8(plane.q + 32 * g + i)), load(x + 32 * g + i)));
}

/// The largest value below `limit`, of floats that are not negative (their bits are in the order of their values).
std::uint32_t largest_below(const std::uint32_t* bits, std::size_t n, std::uint32_t limit) {
  U32x16 best{};
  const U32x16 below = splat(limit);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const U32x16 v = load_u32(bits + i), usable = v < below ? v : U32x16{};
    best = usable > best ? usable : best;
  }
  const float top = hmax(as_f32(best));
  std::uint32_t result;
  std::memcpy(&result, &top, sizeof(result));
  for (; i < n; ++i)
    if (bits[i] < limit) result = std::max(result, bits[i]);
  return result;
}

/// The `count` groups with the largest scales (of equal ones the first), ascending.
void choose_groups(const float* scale, std::size_t groups, std::size_t count, std::uint32_t* out) {
  const auto* bits = reinterpret_cast<const std::uint32_t*>(scale);
  std::uint32_t limit = ~std::uint32_t{0};
  std::size_t above = 0, equal = 0;
  while (above + equal < count && limit != 0) {
    limit = largest_below(bits, groups, limit);
    above += equal;
    equal = static_cast<std::size_t>(std::count(bits, bits + groups, limit));
  }
  std::size_t equal_left = count - above;
  for (std::uint32_t g = 0; g < groups; ++g) {
    if (bits[g] < limit || (bits[g] == limit && equal_left == 0)) continue;
    if (bits[g] == limit) --equal_left;
    *out++ = g;
  }
}

}  // namespace

void quantize(const float* x, const Q8Rows& out, std::size_t row) {
  const Q8Plane plane = out.plane(row), fine = out.fine(row);
  const std::size_t groups = out.k / 32, fine_groups = out.fine_groups();
  alignas(64) float values[Batch::kGroups * 32];
  Batch batch;
  for (std::size_t g = 0; g < groups; g += Batch::kGroups) {
    const std::size_t count = std::min(Batch::kGroups, groups - g);
    const float* from = x + 32 * g;
    if (count < Batch::kGroups) {
      std::fill(std::copy_n(from, 32 * count, values), std::end(values), 0.0f);
      from = values;
    }
    quantize_batch(from, batch);
    put(batch, plane, g, count);
  }
  std::uint32_t* index = out.fine_index(row);
  choose_groups(plane.scale, groups, fine_groups, index);
  index[fine_groups] = Q8Rows::kNoGroup;
  for (std::size_t f = 0; f < fine_groups; f += Batch::kGroups) {
    const std::size_t count = std::min(Batch::kGroups, fine_groups - f);
    std::fill_n(values + 32 * count, 32 * (Batch::kGroups - count), 0.0f);
    for (std::size_t i = 0; i < count; ++i) put_remainder(x, plane, index[f + i], values + 32 * i);
    quantize_batch(values, batch);
    put(batch, fine, f, count);
  }
}

}  // namespace snug::SNUG_ISA_NS
