#include "weights/stored_tensor.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace snug {

FileRange StoredTensor::range_of(std::size_t begin, std::size_t end) const {
  const std::size_t expert = begin / weight.groups(), first = begin % weight.groups();
  const Bytes base = offset + expert * expert_stride;
  if (tiled) return {file, base + first * group_bytes(), (end - begin) * group_bytes()};
  const std::size_t in_row = row_bytes(file_type, weight.cols), row = first * kTileRows;
  const std::size_t rows = std::min<std::size_t>(weight.rows, row + (end - begin) * kTileRows) - row;
  return {file, base + row * in_row, rows * in_row};
}

void StoredTensor::pack(std::span<const std::byte> stored, std::byte* out) const {
  if (tiled) {
    std::memcpy(out, stored.data(), stored.size());
    return;
  }
  const std::size_t in_row = row_bytes(file_type, weight.cols);
  const bool convert = weight.type != file_type;
  std::vector<float> converted(convert ? kTileRows * weight.cols : 0);
  for (; !stored.empty(); out += group_bytes()) {
    const std::size_t n = std::min(kTileRows, stored.size() / in_row);
    const std::byte* in = stored.data();
    if (convert) {
      for (std::size_t i = 0; i < n; ++i)
        dequantize_row(file_type, in + i * in_row, weight.cols, converted.data() + i * weight.cols);
      in = reinterpret_cast<const std::byte*>(converted.data());
    }
    pack_group(weight.type, weight.cols, in, n, out);
    stored = stored.subspan(n * in_row);
  }
}

void StoredTensor::read_groups(std::size_t begin, std::size_t end, std::byte* raw, std::byte* out) const {
  // Consecutive groups of an expert are consecutive in the file: one read.
  for (std::size_t g = begin; g < end;) {
    const std::size_t last = std::min(end, (g / weight.groups() + 1) * weight.groups());
    const FileRange range = range_of(g, last);
    const std::span<std::byte> stored(raw, range.size);
    file->read(range.offset, stored);
    pack(stored, out);
    out += (last - g) * group_bytes();
    g = last;
  }
}

FileRange StoredTensor::range_of_row(std::size_t row) const {
  if (tiled) return range_of(row / kTileRows, row / kTileRows + 1);
  const std::size_t bytes = row_bytes(file_type, weight.cols);
  return {file, offset + row * bytes, bytes};
}

void StoredTensor::unpack_row(const std::byte* stored, std::size_t row, float* out) const {
  if (tiled)
    dequantize_packed_row({weight.type, kTileRows, weight.cols, stored}, row % kTileRows, out);
  else
    dequantize_row(file_type, stored, weight.cols, out);
}

}  // namespace snug
