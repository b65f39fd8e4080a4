#include "kernels/tile_matrix.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/units.hpp"

namespace snug {

namespace {

/// `count` words of `width` bytes; the fields of a block follow each other without gaps.
struct Field {
  std::size_t width, count;
};

std::span<const Field> fields(DType type) {
  static constexpr Field kF32[] = {{4, 1}}, kHalf[] = {{2, 1}};
  static constexpr Field kQ40[] = {{2, 1}, {4, 4}}, kQ41[] = {{2, 2}, {4, 4}};
  static constexpr Field kQ50[] = {{2, 1}, {4, 5}}, kQ51[] = {{2, 2}, {4, 5}};
  static constexpr Field kQ80[] = {{2, 1}, {4, 8}}, kMxfp4[] = {{1, 1}, {4, 4}};
  static constexpr Field kQ2k[] = {{4, 20}, {2, 2}}, kQ3k[] = {{4, 27}, {2, 1}};
  static constexpr Field kQ4k[] = {{2, 2}, {4, 35}}, kQ5k[] = {{2, 2}, {4, 43}};
  static constexpr Field kQ6k[] = {{4, 52}, {2, 1}}, kIq4xs[] = {{2, 2}, {4, 33}};
  switch (type) {
    case DType::f32:
      return kF32;
    case DType::f16:
    case DType::bf16:
      return kHalf;
    case DType::q4_0:
    case DType::iq4_nl:
      return kQ40;
    case DType::q4_1:
      return kQ41;
    case DType::q5_0:
      return kQ50;
    case DType::q5_1:
      return kQ51;
    case DType::q8_0:
      return kQ80;
    case DType::mxfp4:
      return kMxfp4;
    case DType::q2_k:
      return kQ2k;
    case DType::q3_k:
      return kQ3k;
    case DType::q4_k:
      return kQ4k;
    case DType::q5_k:
      return kQ5k;
    case DType::q6_k:
      return kQ6k;
    case DType::iq4_xs:
      return kIq4xs;
    default:
      return {};
  }
}

template <class Word>
void pack_word(const std::byte* in, std::size_t in_stride, std::byte* out) {
  Word column[kTileRows];
  for (std::size_t r = 0; r < kTileRows; ++r) std::memcpy(&column[r], in + r * in_stride, sizeof(Word));
  std::memcpy(out, column, sizeof(column));
}

/// Four words of 4 bytes of all rows, by transposing squares of 4 words by 4 rows.
void pack_four_words(const std::byte* in, std::size_t in_stride, std::byte* out) {
  using Vector [[gnu::vector_size(16)]] = std::uint32_t;
  for (std::size_t r = 0; r < kTileRows; r += 4, in += 4 * in_stride, out += sizeof(Vector)) {
    Vector row[4];
    for (std::size_t i = 0; i < 4; ++i) std::memcpy(&row[i], in + i * in_stride, sizeof(Vector));
    const Vector a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
    const Vector b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
    const Vector c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
    const Vector d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    const Vector word[4] = {__builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
                            __builtin_shufflevector(c, d, 0, 1, 4, 5), __builtin_shufflevector(c, d, 2, 3, 6, 7)};
    for (std::size_t i = 0; i < 4; ++i) std::memcpy(out + i * kTileRows * 4, &word[i], sizeof(Vector));
  }
}

template <class Word>
void pack_words(const std::byte* in, std::size_t in_stride, std::size_t words, std::byte* out) {
  if (sizeof(Word) == 4 && words >= 4) {
    for (std::size_t w = 0; w < words; w += 4) {
      const std::size_t first = std::min(w, words - 4);  // the last four may overlap those before
      pack_four_words(in + first * 4, in_stride, out + first * kTileRows * 4);
    }
    return;
  }
  for (std::size_t w = 0; w < words; ++w)
    pack_word<Word>(in + w * sizeof(Word), in_stride, out + w * kTileRows * sizeof(Word));
}

template <class Word>
void unpack_words(const std::byte* in, std::size_t words, std::size_t row, std::byte* out) {
  for (std::size_t w = 0; w < words; ++w)
    std::memcpy(out + w * sizeof(Word), in + (w * kTileRows + row) * sizeof(Word), sizeof(Word));
}

}  // namespace

std::size_t tile_matrix_bytes(DType type, std::size_t rows, std::size_t cols) {
  return checked_mul(checked_mul((rows + kTileRows - 1) / kTileRows, kTileRows), row_bytes(type, cols));
}

void pack_group(DType type, std::size_t cols, const std::byte* in, std::size_t rows, std::byte* out) {
  const std::size_t stride = row_bytes(type, cols), block = dtype_info(type).block_bytes;
  std::vector<std::byte> padded;
  if (rows < kTileRows) {
    padded.resize(kTileRows * stride);
    std::memcpy(padded.data(), in, rows * stride);
    in = padded.data();
  }
  const std::span<const Field> layout = fields(type);
  for (std::size_t offset = 0; offset < stride; offset += block) {
    const std::byte* from = in + offset;
    for (const Field& field : layout) {
      const auto pack = field.width == 4   ? pack_words<std::uint32_t>
                        : field.width == 2 ? pack_words<std::uint16_t>
                                           : pack_words<std::uint8_t>;
      pack(from, stride, field.count, out);
      from += field.width * field.count;
      out += kTileRows * field.width * field.count;
    }
  }
}

void dequantize_packed_row(const TileMatrix& matrix, std::size_t row, float* out) {
  const DTypeInfo& info = dtype_info(matrix.type);
  const std::byte* in = matrix.data + row / kTileRows * matrix.group_bytes();
  const std::span<const Field> layout = fields(matrix.type);
  std::byte block[256];
  for (std::size_t k = 0; k < matrix.cols; k += info.block_values) {
    std::byte* to = block;
    for (const Field& field : layout) {
      const auto unpack = field.width == 4   ? unpack_words<std::uint32_t>
                          : field.width == 2 ? unpack_words<std::uint16_t>
                                             : unpack_words<std::uint8_t>;
      unpack(in, field.count, row % kTileRows, to);
      to += field.width * field.count;
      in += kTileRows * field.width * field.count;
    }
    dequantize_row(matrix.type, block, info.block_values, out + k);
  }
}

}  // namespace snug
