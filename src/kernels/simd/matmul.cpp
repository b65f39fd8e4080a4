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

/// What 16 (or 32) products are too large by, per unit of the sum of x: the accumulators start from minus that.
template <class U>
constexpr std::int32_t kExcess = U::kOffset >= 0             ? 1 << std::max(U::kOffset, 0)
                                 : U::kSigned && kBiasSigned ? 128
                                                             : 0;

/// A row of x with negative_sum replaced by what accumulators start from, one per scale of a brick.
struct Row {
  Q8Plane plane, fine;
  const std::uint32_t* fine_index;
  std::size_t fine_groups;
};

template <class U>
void prepare_starts(Q8Plane& x, std::size_t groups, std::int32_t*& out) {
  if constexpr (kExcess<U> == 0) return;
  for (std::size_t i = 0; i < groups * U::kScales; ++i)
    out[i] = kExcess<U> * (U::kScales == 2 ? x.negative_sum[i] : x.negative_sum[2 * i] + x.negative_sum[2 * i + 1]);
  x.negative_sum = out;
  out += groups * U::kScales;
}

template <class U>
void prepare_rows(const Q8Rows& x, std::size_t row, std::size_t count, std::int32_t* starts, Row* out) {
  for (std::size_t r = 0; r < count; ++r) {
    out[r] = {x.plane(row + r), x.fine(row + r), x.fine_index(row + r), x.fine_groups()};
    prepare_starts<U>(out[r].plane, x.k / 32, starts);
    prepare_starts<U>(out[r].fine, x.fine_groups(), starts);
  }
}

template <class U>
SNUG_INLINE I32x16 start(const Q8Plane& x, std::size_t k32, int s) {
  if constexpr (kExcess<U> == 0) return set1_i32(0);
  return set1_i32(x.negative_sum[k32 * U::kScales + static_cast<std::size_t>(s)]);
}

/// Where the weights of a product are: in a panel in memory, or in registers just unpacked.
enum class Weights { panel, registers };

template <class U, Weights weights>
SNUG_INLINE I32x16 dot(I32x16 acc, U32x16 w, const std::int8_t* a) {
  if constexpr (U::kSigned && !kBiasSigned) return dot_signed(acc, w, a);
  if constexpr (weights == Weights::registers) return dot_unsigned_in_place(acc, w, a);
  return dot_unsigned(acc, w, a);
}

template <class U>
SNUG_INLINE F32x16 apply_mins(F32x16 sum, const F32x16* min, const Q8Plane& x, std::size_t k32) {
  if constexpr (U::kMins == 1) sum = fma(min[0], set1(x.scaled_sum[k32]), sum);
  if constexpr (U::kMins == 2)
    for (std::size_t i = 0; i < 2; ++i)
      sum = fma(min[i], set1(x.scale[k32] * static_cast<float>(x.negative_sum[2 * k32 + i])), sum);
  return sum;
}

/// One brick of each of `groups` groups of weights for `rows` rows of x: sums[i][r] += what the brick contributes.
template <class U, int rows, int groups, Weights weights, class SomeBrick>
SNUG_INLINE void multiply(const SomeBrick* const (&bricks)[groups], const Q8Plane* x, std::size_t k32,
                          F32x16 (&sums)[groups][rows]) {
  constexpr int kWords = 8 / U::kScales;
  for (int s = 0; s < U::kScales; ++s) {
    I32x16 acc[groups][rows];
    SNUG_UNROLL(12)
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < groups; ++i) acc[i][r] = start<U>(x[r], k32, s);
    SNUG_UNROLL(8)
    for (int g = 0; g < kWords; ++g) {
      U32x16 w[groups];
      for (int i = 0; i < groups; ++i) w[i] = bricks[i]->bytes[s * kWords + g];
      SNUG_UNROLL(12)
      for (int r = 0; r < rows; ++r) {
        const std::int8_t* a = x[r].q + k32 * 32 + static_cast<std::size_t>(s * kWords + g) * 4;
        for (int i = 0; i < groups; ++i) acc[i][r] = dot<U, weights>(acc[i][r], w[i], a);
      }
    }
    SNUG_UNROLL(12)
    for (int r = 0; r < rows; ++r) {
      const F32x16 scale = set1(x[r].scale[k32]);
      for (int i = 0; i < groups; ++i) sums[i][r] = fma(mul(to_f32(acc[i][r]), scale), bricks[i]->scale[s], sums[i][r]);
    }
  }
  if constexpr (U::kMins > 0) {
    SNUG_UNROLL(12)
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < groups; ++i) sums[i][r] = apply_mins<U>(sums[i][r], bricks[i]->min, x[r], k32);
  }
}

/// How far ahead weights are fetched: what memory delivers within its latency, and more.
constexpr std::size_t kAhead = 4096;

SNUG_INLINE void fetch_ahead(Block block, std::size_t bytes) {
  for (std::size_t line = 0; line < bytes; line += 64) __builtin_prefetch(block + kAhead + line, 0, 3);
}

/// Up to kDirectInputs rows that meet packed weights, and for every brick which of them have it in their fine plane.
struct FewRows {
  Row row[kDirectInputs];
  std::size_t count;
  const std::uint8_t* fine_rows;  ///< per brick: bit r for row r
};

template <class U>
void prepare_few(const Q8Rows& x, std::size_t row, std::size_t count, std::byte* scratch, FewRows& out) {
  auto* starts = reinterpret_cast<std::int32_t*>(scratch);
  prepare_rows<U>(x, row, count, starts, out.row);
  out.count = count;
  auto* fine_rows = reinterpret_cast<std::uint8_t*>(scratch + starts_bytes(x.k));
  std::fill_n(fine_rows, x.k / 32, std::uint8_t{0});
  for (std::size_t r = 0; r < count; ++r)
    for (std::size_t f = 0; f < x.fine_groups(); ++f)
      fine_rows[out.row[r].fine_index[f]] |= static_cast<std::uint8_t>(1u << r);
  out.fine_rows = fine_rows;
}

/// Few rows (up to `rows` the last one is repeated) straight from the packed block.
template <DType type, int rows>
void multiply_group(Block block, std::size_t block_bytes, std::size_t blocks, const FewRows& input, float* y,
                    std::size_t y_stride) {
  using U = Unpack<type>;
  Q8Plane x[rows];
  F32x16 sums[1][rows], fine_sums[rows][1][1];
  std::size_t fine_at[rows];
  for (int r = 0; r < rows; ++r) {
    x[r] = input.row[std::min(static_cast<std::size_t>(r), input.count - 1)].plane;
    sums[0][r] = fine_sums[r][0][0] = zero();
    fine_at[r] = 0;
  }
  for (std::size_t i = 0; i < blocks; ++i, block += block_bytes) {
    fetch_ahead(block, block_bytes);
    const auto state = U::begin(block);
    SNUG_UNROLL(8)
    for (int b = 0; b < U::kBricks; ++b) {
      Brick brick;
      U::brick(block, state, b, brick);
      const Brick* const bricks[] = {&brick};
      const std::size_t k32 = i * U::kBricks + static_cast<std::size_t>(b);
      multiply<U, rows, 1, Weights::registers>(bricks, x, k32, sums);
      for (unsigned fine = input.fine_rows[k32]; fine != 0; fine &= fine - 1) {
        const int r = __builtin_ctz(fine);
        multiply<U, 1, 1, Weights::registers>(bricks, &input.row[r].fine, fine_at[r]++, fine_sums[r]);
      }
    }
  }
  for (std::size_t r = 0; r < input.count; ++r) store(y + r * y_stride, add(sums[0][r], fine_sums[r][0][0]));
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
    fetch_ahead(block, block_bytes);
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

/// Weights that are fetched, a little with every brick, while others are multiplied.
struct Ahead {
  Block at, end;
  SNUG_INLINE void fetch() {
    constexpr std::size_t kLines = 5;  // at 16 rows, what the next panels need
    if (at >= end) return;
    for (std::size_t line = 0; line < kLines; ++line) __builtin_prefetch(at + 64 * line, 0, 2);
    at += 64 * kLines;
  }
};

/// `valid` rows of x (up to `rows` the last one is repeated) with `groups` panels, so that each word of x that is read
/// meets several vectors of weights.
template <DType type, int rows, int groups>
void multiply_panels(const PanelBrick<Unpack<type>>* panel, std::size_t count, const Row* inputs, std::size_t valid,
                     float* y, std::size_t y_stride, Ahead& ahead) {
  using U = Unpack<type>;
  Q8Plane x[rows];
  F32x16 sums[groups][rows];
  for (int r = 0; r < rows; ++r) {
    x[r] = inputs[std::min(static_cast<std::size_t>(r), valid - 1)].plane;
    for (int i = 0; i < groups; ++i) sums[i][r] = zero();
  }
  for (std::size_t k32 = 0; k32 < count; ++k32) {
    const PanelBrick<U>* bricks[groups];
    for (int i = 0; i < groups; ++i) bricks[i] = panel + static_cast<std::size_t>(i) * count + k32;
    ahead.fetch();
    multiply<U, rows, groups, Weights::panel>(bricks, x, k32, sums);
  }
  for (std::size_t r = 0; r < valid; ++r)
    for (int i = 0; i < groups; ++i) store(y + r * y_stride + i * 16, sums[i][r]);
}

/// The fine planes of a block of rows, by brick: rows that share an outlier's brick meet it while it is in the L1
/// cache.
struct FineRows {
  Q8Plane plane[kFineInputs + 1];  ///< and one that takes part where a row has no partner
  std::size_t rows;
  const std::uint64_t* by_brick;  ///< per brick: bit r if row r has it in its fine plane
};

template <class U>
void prepare_fine(const Q8Rows& x, std::size_t row, std::size_t count, std::byte* scratch, FineRows& out) {
  static_assert(kFineInputs <= 64);
  const std::size_t bricks = x.k / 32, groups = x.fine_groups();
  auto* by_brick = reinterpret_cast<std::uint64_t*>(scratch);
  auto* starts = reinterpret_cast<std::int32_t*>(by_brick + bricks);
  out.rows = count;
  out.by_brick = by_brick;
  std::fill_n(by_brick, bricks, std::uint64_t{0});
  for (std::size_t r = 0; r < count; ++r) {
    out.plane[r] = x.fine(row + r);
    prepare_starts<U>(out.plane[r], groups, starts);
    const std::uint32_t* index = x.fine_index(row + r);
    for (std::size_t f = 0; f < groups; ++f) by_brick[index[f]] |= std::uint64_t{1} << r;
  }
  out.plane[kFineInputs] = out.plane[0];
}

/// The plane from its group `k32` on.
template <class U>
SNUG_INLINE Q8Plane plane_from(const Q8Plane& x, std::size_t k32) {
  constexpr std::size_t kSums = kExcess<U> == 0 ? 2 : U::kScales;
  return {x.q + 32 * k32, x.scale + k32, x.scaled_sum + k32, x.negative_sum + kSums * k32};
}

/// y += the fine planes of a block of rows, for `groups` panels and two rows at once: their chains of sums are
/// independent.
template <DType type, int groups>
void multiply_fine(const PanelBrick<Unpack<type>>* panel, std::size_t count, const FineRows& x, float* y,
                   std::size_t y_stride) {
  using U = Unpack<type>;
  F32x16 sums[kFineInputs + 1][groups];
  std::size_t at[kFineInputs + 1] = {};
  for (auto& row : sums)
    for (auto& sum : row) sum = zero();
  for (std::size_t k32 = 0; k32 < count; ++k32) {
    const PanelBrick<U>* bricks[groups];
    for (int i = 0; i < groups; ++i) bricks[i] = panel + static_cast<std::size_t>(i) * count + k32;
    for (std::uint64_t rest = x.by_brick[k32]; rest != 0; rest &= rest - 1) {
      std::size_t row[2] = {static_cast<std::size_t>(__builtin_ctzll(rest)), kFineInputs};
      rest &= rest - 1;
      if (rest != 0) row[1] = static_cast<std::size_t>(__builtin_ctzll(rest));
      Q8Plane planes[2];
      F32x16 sum[groups][2];
      for (int r = 0; r < 2; ++r) {
        planes[r] = plane_from<U>(x.plane[row[r]], at[row[r]]++);
        for (int i = 0; i < groups; ++i) sum[i][r] = sums[row[r]][i];
      }
      multiply<U, 2, groups, Weights::panel>(bricks, planes, 0, sum);
      for (int r = 0; r < 2; ++r)
        for (int i = 0; i < groups; ++i) sums[row[r]][i] = sum[i][r];
      at[kFineInputs] = 0;
      if (rest == 0) break;
    }
  }
  for (std::size_t r = 0; r < x.rows; ++r)
    for (int i = 0; i < groups; ++i) {
      float* to = y + r * y_stride + i * 16;
      store(to, add(load(to), sums[r][i]));
    }
}

constexpr std::size_t kTile = kTileInputs;

template <DType type>
struct Product {
  using U = Unpack<type>;
  // Where unpacking is dear, fewer rows pay for a panel.
  static constexpr std::size_t kDirect = U::kScales == 2 ? kDirectInputs / 2 : kDirectInputs;
  using GroupFn = void (*)(Block, std::size_t, std::size_t, const FewRows&, float*, std::size_t);
  using PanelFn = void (*)(const PanelBrick<U>*, std::size_t, const Row*, std::size_t, float*, std::size_t, Ahead&);
  // Not every number of rows has code of its own: it would take minutes to compile.
  static constexpr GroupFn kGroup[] = {multiply_group<type, 1>, multiply_group<type, 2>, multiply_group<type, 4>,
                                       multiply_group<type, 4>, multiply_group<type, 6>, multiply_group<type, 6>,
                                       multiply_group<type, 8>, multiply_group<type, 8>};
  static constexpr PanelFn kPair[] = {multiply_panels<type, 3, 2>, multiply_panels<type, 4, 2>,
                                      multiply_panels<type, 5, 2>, multiply_panels<type, 6, 2>};
  static constexpr std::size_t kPairRows[] = {3, 4, 5, 6};

  using FineFn = void (*)(const PanelBrick<U>*, std::size_t, const FineRows&, float*, std::size_t);
  static constexpr FineFn kFine[] = {multiply_fine<type, 1>, multiply_fine<type, 2>, multiply_fine<type, 3>,
                                     multiply_fine<type, 4>};

  static void run(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const Q8Rows& x, float* y,
                  std::size_t y_stride, std::byte* scratch) {
    const std::size_t block_bytes = kTileRows * dtype_info(type).block_bytes;
    const std::size_t bricks = w.cols / 32, blocks = bricks / U::kBricks;
    const std::size_t group_bytes = blocks * block_bytes;
    std::byte* prepared = scratch + panel_bytes(w.cols);
    if (x.rows <= kDirect) {
      FewRows rows;
      prepare_few<U>(x, 0, x.rows, prepared, rows);
      for (std::size_t g = group_begin; g < group_end; ++g, y += kTileRows)
        kGroup[x.rows - 1](w.data + g * group_bytes, block_bytes, blocks, rows, y, y_stride);
      return;
    }
    auto* starts = reinterpret_cast<std::int32_t*>(prepared);
    auto* panel = reinterpret_cast<PanelBrick<U>*>(scratch);
    // An even number: panels are multiplied in pairs.
    const std::size_t panel_groups =
        std::max<std::size_t>(2, kPanelBytes / (bricks * sizeof(PanelBrick<U>)) & ~std::size_t{1});
    const std::size_t tiles = (x.rows + kTile - 1) / kTile, tile = (x.rows + tiles - 1) / tiles;
    for (std::size_t g = group_begin; g < group_end; g += panel_groups, y += panel_groups * kTileRows) {
      const std::size_t count = std::min(panel_groups, group_end - g);
      for (std::size_t i = 0; i < count; ++i)
        unpack_panel<type>(w.data + (g + i) * group_bytes, block_bytes, blocks, panel + i * bricks);
      const Block next = w.data + (g + count) * group_bytes;
      Ahead ahead{next, next + count * group_bytes};
      for (std::size_t first = 0; first < x.rows; first += kFineInputs) {
        const std::size_t end = std::min(x.rows, first + kFineInputs);
        for (std::size_t row = first; row < end; row += tile)
          multiply_tile(panel, count, bricks, x, row, std::min(tile, end - row), y + row * y_stride, y_stride, starts,
                        ahead);
        FineRows fine;
        prepare_fine<U>(x, first, end - first, prepared + starts_bytes(w.cols), fine);
        for (std::size_t i = 0; i < count; i += 4)
          kFine[std::min<std::size_t>(4, count - i) - 1](panel + i * bricks, bricks, fine,
                                                         y + first * y_stride + i * kTileRows, y_stride);
      }
    }
  }

  /// `n` rows of x with `count` panels.
  static void multiply_tile(const PanelBrick<U>* panel, std::size_t count, std::size_t bricks, const Q8Rows& x,
                            std::size_t row, std::size_t n, float* y, std::size_t y_stride, std::int32_t* starts,
                            Ahead& ahead) {
    Row rows[kTile];
    prepare_rows<U>(x, row, n, starts, rows);
    const auto size = std::lower_bound(std::begin(kPairRows), std::end(kPairRows), n) - std::begin(kPairRows);
    for (std::size_t i = 0; i < count; i += 2) {
      const PanelFn multiply = i + 1 < count ? kPair[size] : multiply_panels<type, kTile, 1>;
      multiply(panel + i * bricks, bricks, rows, n, y + i * kTileRows, y_stride, ahead);
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
