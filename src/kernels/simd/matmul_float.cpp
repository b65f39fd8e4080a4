// Products of f32, f16 and bf16 weights with f32 rows: one fused multiply-add per value, along K.

#include <algorithm>

#include "kernels/kernels.hpp"
#include "kernels/simd/f32.hpp"
#include "kernels/simd/functions.hpp"

namespace snug::SNUG_ISA_NS {

namespace {

template <DType type>
SNUG_INLINE F32x16 weights(const std::byte* p) {
  if constexpr (type == DType::f32) return load(reinterpret_cast<const float*>(p));
  if constexpr (type == DType::f16) return load_f16(reinterpret_cast<const std::uint16_t*>(p));
  return load_bf16(reinterpret_cast<const std::uint16_t*>(p));
}

template <DType type, int rows>
void multiply_group(const std::byte* w, std::size_t cols, const float* x, std::size_t x_stride, float* y,
                    std::size_t y_stride) {
  constexpr std::size_t kStep = kTileRows * (type == DType::f32 ? 4 : 2);
  F32x16 sums[rows];
  for (auto& s : sums) s = zero();
  for (std::size_t k = 0; k < cols; ++k, w += kStep) {
    const F32x16 v = weights<type>(w);
    SNUG_UNROLL(12)
    for (int r = 0; r < rows; ++r) sums[r] = fma(v, set1(x[static_cast<std::size_t>(r) * x_stride + k]), sums[r]);
  }
  for (int r = 0; r < rows; ++r) store(y + static_cast<std::size_t>(r) * y_stride, sums[r]);
}

template <DType type>
void run(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const float* x, std::size_t rows,
         std::size_t x_stride, float* y, std::size_t y_stride) {
  constexpr std::size_t kTile = 12;
  using Fn = void (*)(const std::byte*, std::size_t, const float*, std::size_t, float*, std::size_t);
  static constexpr Fn kFns[kTile] = {multiply_group<type, 1>,  multiply_group<type, 2>,  multiply_group<type, 3>,
                                     multiply_group<type, 4>,  multiply_group<type, 5>,  multiply_group<type, 6>,
                                     multiply_group<type, 7>,  multiply_group<type, 8>,  multiply_group<type, 9>,
                                     multiply_group<type, 10>, multiply_group<type, 11>, multiply_group<type, 12>};
  const std::size_t tiles = (rows + kTile - 1) / kTile, tile = (rows + tiles - 1) / tiles;
  const std::size_t group_bytes = w.group_bytes();
  for (std::size_t g = group_begin; g < group_end; ++g, y += kTileRows)
    for (std::size_t row = 0; row < rows; row += tile)
      kFns[std::min(tile, rows - row) - 1](w.data + g * group_bytes, w.cols, x + row * x_stride, x_stride,
                                           y + row * y_stride, y_stride);
}

}  // namespace

void matmul_float(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const float* x,
                  std::size_t x_rows, std::size_t x_stride, float* y, std::size_t y_stride, std::byte*) {
  if (x_rows == 0) return;
  switch (w.type) {
    case DType::f32:
      return run<DType::f32>(w, group_begin, group_end, x, x_rows, x_stride, y, y_stride);
    case DType::f16:
      return run<DType::f16>(w, group_begin, group_end, x, x_rows, x_stride, y, y_stride);
    case DType::bf16:
      return run<DType::bf16>(w, group_begin, group_end, x, x_rows, x_stride, y, y_stride);
    default:
      return;  // quantised types: matmul_q8
  }
}

}  // namespace snug::SNUG_ISA_NS
