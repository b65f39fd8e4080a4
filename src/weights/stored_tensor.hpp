#pragma once
/// How a tensor lies in a file, and how it comes from there into the layout that kernels multiply.

#include <span>
#include <string>

#include "base/file.hpp"
#include "weights/weight_source.hpp"

namespace snug {

struct StoredTensor {
  std::string name;
  const RandomAccessFile* file = nullptr;
  DType file_type{};  ///< when it is not the weight's type, values are converted on arrival
  Weight weight;
  Bytes offset = 0;         ///< of expert 0 in the file
  Bytes expert_stride = 0;  ///< from one expert to the next
  bool tiled = false;       ///< the file holds groups as the kernels want them, the last one filled up; else rows

  std::size_t all_groups() const { return weight.groups() * weight.experts; }
  /// Of a group of 16 rows in memory and in the file.
  std::size_t group_bytes() const { return kTileRows * row_bytes(weight.type, weight.cols); }
  std::size_t file_group_bytes() const { return kTileRows * row_bytes(file_type, weight.cols); }
  /// Of one expert (of the whole matrix when there are none) in memory and in the file.
  std::size_t expert_bytes() const { return weight.groups() * group_bytes(); }
  std::size_t file_expert_bytes() const { return range_of(0, weight.groups()).size; }

  /// Where groups [begin, end) (counted over all experts, of one expert) lie.
  FileRange range_of(std::size_t begin, std::size_t end) const;
  /// What range_of() says, as it was read, brought to `out`.
  void pack(std::span<const std::byte> stored, std::byte* out) const;
  /// Groups [begin, end) of any experts, read now. `raw`: file_group_bytes() for each.
  void read_groups(std::size_t begin, std::size_t end, std::byte* raw, std::byte* out) const;
  /// Where a row of the first expert lies (with its group, if the file is tiled).
  FileRange range_of_row(std::size_t row) const;
  /// What range_of_row() says, as it was read, brought to f32[cols].
  void unpack_row(const std::byte* stored, std::size_t row, float* out) const;
};

}  // namespace snug
