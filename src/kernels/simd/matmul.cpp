// Quantised products. Few rows of x: a brick of weights is unpacked into registers and multiplied at once. Many rows:
// panels of a few groups are unpacked once into scratch (in the L2 cache) and multiplied with tiles of 12 rows. Both do
// the same arithmetic per output, in the same order: 32 (or 16) products summed exactly, times the activation's scale,
// times the weight's scale, added along K;
// and in a sum of its own the same for the row's fine plane.

#include <algorithm>

#include "kernels/kernels.hpp"
#include "kernels/matmul_scratch.hpp"
#include "kernels/simd/functions.hpp"
#include "kernels/simd/unpack.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

/// What the accumulator of 16 values (sum over [16 j, 16 j + 16)) starts from.
template <class U>
SNUG_INLINE I32x16 start(std::int32_t negative_sum) {
  if constexpr (U::kOffset >= 0) return set1_i32(negative_sum * (1 << U::kOffset));
  if constexpr (U::kSigned && kBiasSigned) return set1_i32(negative_sum * 128);
  return set1_i32(0);
}

template <class U>
SNUG_INLINE I32x16 dot(I32x16 acc, U32x16 w, const std::int8_t* a) {
  if constexpr (U::kSigned) return dot_signed(acc, w, a);
  return dot_unsigned(acc, w, a);
}

template <class U>
SNUG_INLINE F32x16 apply_mins(F32x16 sum, const F32x16* min, const Q8Plane& x, std::size_t k32) {
  if constexpr (U::kMins == 1) sum = fma(sub(zero(), min[0]), set1(x.scaled_sum[k32]), sum);
  if constexpr (U::kMins == 2)
    for (std::size_t i = 0; i < 2; ++i)
      sum = fma(min[i], set1(x.scale[k32] * static_cast<float>(x.negative_sum[2 * k32 + i])), sum);
  return sum;
}

/// One brick for `rows` rows of x: sums[r] += what the brick contributes.
template <class U, int rows>
SNUG_INLINE void multiply(const U32x16* bytes, const F32x16* scale, const F32x16* min, const Q8Plane* x,
                          std::size_t k32, F32x16* sums) {
  constexpr int kGroups = 8 / U::kScales;
  for (int s = 0; s < U::kScales; ++s) {
    I32x16 acc[rows];
    for (int r = 0; r < rows; ++r) {
      const std::int32_t* negative = x[r].negative_sum + 2 * k32;
      acc[r] = start<U>(U::kScales == 2 ? negative[s] : negative[0] + negative[1]);
    }
    SNUG_UNROLL(8)
    for (int g = 0; g < kGroups; ++g) {
      const U32x16 w = bytes[s * kGroups + g];
      SNUG_UNROLL(12)
      for (int r = 0; r < rows; ++r)
        acc[r] = dot<U>(acc[r], w, x[r].q + k32 * 32 + static_cast<std::size_t>(s * kGroups + g) * 4);
    }
    SNUG_UNROLL(12)
    for (int r = 0; r < rows; ++r) sums[r] = fma(mul(to_f32(acc[r]), set1(x[r].scale[k32])), scale[s], sums[r]);
  }
  if constexpr (U::kMins > 0) {
    SNUG_UNROLL(12)
    for (int r = 0; r < rows; ++r) sums[r] = apply_mins<U>(sums[r], min, x[r], k32);
  }
}

/// How far ahead weights are fetched: what memory delivers within its latency, and more.
constexpr std::size_t kAhead = 4096;

/// Few rows, `valid` of them (the others repeat the last): straight from the packed block.
template <DType type, int rows>
void multiply_group(Block block, std::size_t block_bytes, std::size_t blocks, const Q8Rows& q8, std::size_t valid,
                    float* y, std::size_t y_stride) {
  using U = Unpack<type>;
  Q8Plane x[rows], fine[rows];
  const std::uint32_t *index[rows], *first[rows];
  F32x16 sums[rows], fine_sums[rows];
  for (int r = 0; r < rows; ++r) {
    const std::size_t row = std::min(static_cast<std::size_t>(r), valid - 1);
    x[r] = q8.plane(row);
    fine[r] = q8.fine(row);
    index[r] = first[r] = q8.fine_index(row);
    sums[r] = fine_sums[r] = zero();
  }
  for (std::size_t i = 0; i < blocks; ++i, block += block_bytes) {
    if constexpr (rows <= 4)
      for (std::size_t line = 0; line < block_bytes; line += 64) __builtin_prefetch(block + kAhead + line, 0, 3);
    const auto state = U::begin(block);
    SNUG_UNROLL(8)
    for (int b = 0; b < U::kBricks; ++b) {
      Brick brick;
      U::brick(block, state, b, brick);
      const std::size_t k32 = i * U::kBricks + static_cast<std::size_t>(b);
      multiply<U, rows>(brick.bytes, brick.scale, brick.min, x, k32, sums);
      SNUG_UNROLL(8)
      for (int r = 0; r < rows; ++r)
        if (*index[r] == k32) {
          const auto f = static_cast<std::size_t>(index[r]++ - first[r]);
          multiply<U, 1>(brick.bytes, brick.scale, brick.min, &fine[r], f, &fine_sums[r]);
        }
    }
  }
  for (std::size_t r = 0; r < valid; ++r) store(y + r * y_stride, add(sums[r], fine_sums[r]));
}

/// A brick as it lies in a panel.
template <class U>
struct alignas(64) PanelBrick {
  U32x16 bytes[8];
  F32x16 scale[U::kScales];
  F32x16 min[U::kMins > 0 ? U::kMins : 1];
};

template <DType type>
void unpack_panel(Block block, std::size_t block_bytes, std::size_t blocks, PanelBrick<Unpack<type>>* out) {
  using U = Unpack<type>;
  for (std::size_t i = 0; i < blocks; ++i, block += block_bytes) {
    const auto state = U::begin(block);
    SNUG_UNROLL(8)
    for (int b = 0; b < U::kBricks; ++b, ++out) {
      Brick brick;
      U::brick(block, state, b, brick);
      std::copy_n(brick.bytes, 8, out->bytes);
      std::copy_n(brick.scale, U::kScales, out->scale);
      if constexpr (U::kMins > 0) std::copy_n(brick.min, U::kMins, out->min);
    }
  }
}

/// Rows [row0, row0 + valid) of x; up to `rows` the last one is repeated.
template <DType type, int rows>
void multiply_panel(const PanelBrick<Unpack<type>>* panel, std::size_t bricks, const Q8Rows& q8, std::size_t row0,
                    std::size_t valid, float* y, std::size_t y_stride) {
  using U = Unpack<type>;
  Q8Plane x[rows];
  F32x16 sums[rows];
  for (int r = 0; r < rows; ++r) {
    x[r] = q8.plane(row0 + std::min(static_cast<std::size_t>(r), valid - 1));
    sums[r] = zero();
  }
  for (std::size_t k32 = 0; k32 < bricks; ++k32)
    multiply<U, rows>(panel[k32].bytes, panel[k32].scale, panel[k32].min, x, k32, sums);
  for (std::size_t r = 0; r < valid; ++r) store(y + r * y_stride, sums[r]);
}

/// y += the fine planes of `rows` rows, for `groups` panels at once: their chains of sums are independent.
template <DType type, int groups>
void multiply_fine(const PanelBrick<Unpack<type>>* panel, std::size_t bricks, const Q8Rows& q8, std::size_t row0,
                   std::size_t rows, float* y, std::size_t y_stride) {
  using U = Unpack<type>;
  for (std::size_t row = row0; row < row0 + rows; ++row, y += y_stride) {
    const Q8Plane fine = q8.fine(row);
    const std::uint32_t* index = q8.fine_index(row);
    F32x16 sums[groups];
    for (auto& sum : sums) sum = zero();
    for (std::size_t f = 0; f < q8.fine_groups(); ++f) {
      SNUG_UNROLL(4)
      for (int g = 0; g < groups; ++g) {
        const PanelBrick<U>& brick = panel[static_cast<std::size_t>(g) * bricks + index[f]];
        multiply<U, 1>(brick.bytes, brick.scale, brick.min, &fine, f, &sums[g]);
      }
    }
    for (int g = 0; g < groups; ++g) store(y + g * 16, add(load(y + g * 16), sums[g]));
  }
}

constexpr std::size_t kTile = 12;   // rows of x whose accumulators fit into registers
constexpr std::size_t kDirect = 8;  // up to so many rows are multiplied without a panel

template <DType type>
struct Product {
  using U = Unpack<type>;
  using GroupFn = void (*)(Block, std::size_t, std::size_t, const Q8Rows&, std::size_t, float*, std::size_t);
  using PanelFn = void (*)(const PanelBrick<U>*, std::size_t, const Q8Rows&, std::size_t, std::size_t, float*,
                           std::size_t);
  // Not every number of rows has code of its own: it would take minutes to compile.
  static constexpr GroupFn kGroup[] = {multiply_group<type, 1>, multiply_group<type, 2>, multiply_group<type, 4>,
                                       multiply_group<type, 4>, multiply_group<type, 6>, multiply_group<type, 6>,
                                       multiply_group<type, 8>, multiply_group<type, 8>};
  static constexpr PanelFn kPanel[] = {multiply_panel<type, 4>, multiply_panel<type, 8>, multiply_panel<type, 10>,
                                       multiply_panel<type, 12>};
  static constexpr std::size_t kPanelRows[] = {4, 8, 10, 12};

  using FineFn = void (*)(const PanelBrick<U>*, std::size_t, const Q8Rows&, std::size_t, std::size_t, float*,
                          std::size_t);
  static constexpr FineFn kFine[] = {multiply_fine<type, 1>, multiply_fine<type, 2>, multiply_fine<type, 3>,
                                     multiply_fine<type, 4>};

  static void run(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const Q8Rows& x, float* y,
                  std::size_t y_stride, std::byte* scratch) {
    const std::size_t block_bytes = kTileRows * dtype_info(type).block_bytes;
    const std::size_t bricks = w.cols / 32, blocks = bricks / U::kBricks;
    const std::size_t group_bytes = blocks * block_bytes;
    if (x.rows <= kDirect) {
      for (std::size_t g = group_begin; g < group_end; ++g, y += kTileRows)
        kGroup[x.rows - 1](w.data + g * group_bytes, block_bytes, blocks, x, x.rows, y, y_stride);
      return;
    }
    auto* panel = reinterpret_cast<PanelBrick<U>*>(scratch);
    const std::size_t panel_groups = std::max<std::size_t>(1, kPanelBytes / (bricks * sizeof(PanelBrick<U>)));
    const std::size_t tiles = (x.rows + kTile - 1) / kTile, tile = (x.rows + tiles - 1) / tiles;
    for (std::size_t g = group_begin; g < group_end; g += panel_groups, y += panel_groups * kTileRows) {
      const std::size_t count = std::min(panel_groups, group_end - g);
      for (std::size_t i = 0; i < count; ++i)
        unpack_panel<type>(w.data + (g + i) * group_bytes, block_bytes, blocks, panel + i * bricks);
      for (std::size_t row = 0; row < x.rows; row += tile) {
        const std::size_t n = std::min(tile, x.rows - row);
        const auto size = std::lower_bound(std::begin(kPanelRows), std::end(kPanelRows), n) - std::begin(kPanelRows);
        for (std::size_t i = 0; i < count; ++i)
          kPanel[size](panel + i * bricks, bricks, x, row, n, y + row * y_stride + i * kTileRows, y_stride);
        for (std::size_t i = 0; i < count; i += 4)
          kFine[std::min<std::size_t>(4, count - i) - 1](panel + i * bricks, bricks, x, row, n,
                                                         y + row * y_stride + i * kTileRows, y_stride);
      }
    }
  }
};

}  // namespace

void matmul_q8(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const Q8Rows& x, float* y,
               std::size_t y_stride, std::byte* scratch) {
  if (x.rows == 0) return;
  const auto run = [&](auto product) { product.run(w, group_begin, group_end, x, y, y_stride, scratch); };
  switch (w.type) {
    case DType::q4_0:
      return run(Product<DType::q4_0>());
    case DType::q4_1:
      return run(Product<DType::q4_1>());
    case DType::q5_0:
      return run(Product<DType::q5_0>());
    case DType::q5_1:
      return run(Product<DType::q5_1>());
    case DType::q8_0:
      return run(Product<DType::q8_0>());
    case DType::q2_k:
      return run(Product<DType::q2_k>());
    case DType::q3_k:
      return run(Product<DType::q3_k>());
    case DType::q4_k:
      return run(Product<DType::q4_k>());
    case DType::q5_k:
      return run(Product<DType::q5_k>());
    case DType::q6_k:
      return run(Product<DType::q6_k>());
    case DType::iq4_nl:
      return run(Product<DType::iq4_nl>());
    case DType::iq4_xs:
      return run(Product<DType::iq4_xs>());
    case DType::mxfp4:
      return run(Product<DType::mxfp4>());
    default:
      return;  // floating types: matmul_float
  }
}

}  // namespace snug::SNUG_ISA_NS
