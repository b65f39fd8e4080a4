#pragma once
/// The layout in which weights lie in memory, the same on every instruction set: 16 rows side by side.
///
/// Rows are taken in groups of 16 (the last group is filled up with zero blocks). Within a group, blocks follow each
/// other along K; within a block (GGUF's own block of 32 or 256 values), each field of the block is transposed over the
/// 16 rows word by word: for a field of `count` words of `width` bytes (1, 2 or 4), word w of rows 0..15, then word w+1
/// of rows 0..15. So a 512-bit vector of 4-byte words holds 4 bytes of each of 16 rows (lanes = output rows), no byte
/// is added and the group takes exactly 16 * row_bytes: packing is a permutation, done in place or on arrival, and can
/// be undone. f32, f16 and bf16 are blocks of one value: [k][16 rows].

#include <cstddef>
#include <span>

#include "kernels/dtype.hpp"

namespace snug {

inline constexpr std::size_t kTileRows = 16;

/// Read-only view of a packed matrix: y = W x, W is [rows, cols]. Rows are padded to groups of 16 in memory.
struct TileMatrix {
  DType type{};
  std::size_t rows = 0, cols = 0;
  const std::byte* data = nullptr;

  std::size_t groups() const { return (rows + kTileRows - 1) / kTileRows; }
  std::size_t group_bytes() const { return kTileRows * row_bytes(type, cols); }
};

/// Bytes of the packed matrix (whole groups). Overflow-checked.
std::size_t tile_matrix_bytes(DType type, std::size_t rows, std::size_t cols);

/// Packs `rows` (1..16) GGUF rows at `in` (contiguous) into one group at `out`; missing rows become zero bytes.
void pack_group(DType type, std::size_t cols, const std::byte* in, std::size_t rows, std::byte* out);

/// Row `row` of a packed matrix as plain values, f32[cols] (embedding rows, tests).
void dequantize_packed_row(const TileMatrix& matrix, std::size_t row, float* out);

/// A row in GGUF layout as plain values, f32[cols]: the reference for every type.
void dequantize_row(DType type, const std::byte* in, std::size_t cols, float* out);

}  // namespace snug
