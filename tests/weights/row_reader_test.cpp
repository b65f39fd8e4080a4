// Rows of a matrix that is not in memory are those of the file, in whatever order and however often they are wanted.

#include "weights/row_reader.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"
#include "support/gguf_writer.hpp"

namespace snug {
namespace {

constexpr std::uint32_t kRows = 200, kCols = 300;
constexpr std::size_t kOffset = 1000;

float value(std::size_t row, std::size_t col) {
  return static_cast<float>(row * 1000 + col);
}

/// f32 rows one after the other, or in groups of 16 as kernels multiply them, after some other bytes.
std::string file_bytes(bool tiled) {
  std::string bytes(kOffset, 'x');
  std::vector<float> rows(kTileRows * kCols);
  for (std::size_t first = 0; first < kRows; first += kTileRows) {
    const std::size_t n = std::min<std::size_t>(kTileRows, kRows - first);
    for (std::size_t i = 0; i < n * kCols; ++i) rows[i] = value(first + i / kCols, i % kCols);
    std::string group(reinterpret_cast<const char*>(rows.data()), n * kCols * 4);
    if (tiled) {
      group.resize(kTileRows * kCols * 4);
      pack_group(DType::f32, kCols, reinterpret_cast<const std::byte*>(rows.data()), n,
                 reinterpret_cast<std::byte*>(group.data()));
    }
    bytes += group;
  }
  return bytes;
}

StoredTensor tensor_in(const RandomAccessFile& file, bool tiled) {
  StoredTensor tensor;
  tensor.file = &file;
  tensor.file_type = tensor.weight.type = DType::f32;
  tensor.weight.rows = kRows;
  tensor.weight.cols = kCols;
  tensor.offset = kOffset;
  tensor.tiled = tiled;
  return tensor;
}

TEST(RowReader, AnyRowsInAnyOrder) {
  for (const bool tiled : {false, true}) {
    const testing_support::MemoryFile file(file_bytes(tiled));
    const StoredTensor tensor = tensor_in(file, tiled);
    Ledger ledger{Ledger::kUnlimited};
    RowReader reader(ledger, tensor.range_of_row(0).size);
    std::mt19937 random(1);
    for (const std::size_t count : {1, 2, 500}) {
      std::vector<float> out(count * kCols);
      std::vector<RowUse> uses;
      for (std::size_t i = 0; i < count; ++i) uses.push_back({random() % kRows, out.data() + i * kCols});
      reader.read(tensor, uses);
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t c = 0; c < kCols; ++c)
          ASSERT_EQ(out[i * kCols + c], value(uses[i].row, c)) << tiled << " " << i << " " << c;
    }
  }
}

TEST(RowReader, AnErrorIsAnErrorAndTheNextReadWorks) {
  const testing_support::MemoryFile file(file_bytes(false), kOffset + 100 * kCols * 4);
  const StoredTensor tensor = tensor_in(file, false);
  Ledger ledger{Ledger::kUnlimited};
  RowReader reader(ledger, tensor.range_of_row(0).size);
  std::vector<float> out(kRows * kCols);
  std::vector<RowUse> uses;
  for (std::size_t i = 0; i < kRows; ++i) uses.push_back({i, out.data() + i * kCols});
  EXPECT_THROW(reader.read(tensor, uses), IoError);
  reader.read(tensor, std::span(uses).first(50));
  EXPECT_EQ(out[49 * kCols + 7], value(49, 7));
}

}  // namespace
}  // namespace snug
