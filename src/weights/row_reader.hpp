#pragma once
/// Rows of a matrix that is not in memory (embedding look-up), many reads in flight: a prompt asks for hundreds at
/// once, and one after the other they would take as long as a tenth of its forward pass.

#include <memory>
#include <span>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"
#include "weights/stored_tensor.hpp"

namespace snug {

class RowReader {
public:
  /// For tensors whose rows lie in at most `most_bytes` of the file (StoredTensor::range_of_row).
  RowReader(Ledger& ledger, std::size_t most_bytes);
  static Bytes memory_bytes(std::size_t most_bytes) {
    return round_up(kDepth * FileRange::blocks_bytes(most_bytes), kDirectBlock);
  }

  /// Reads rows of the tensor's first expert; several of one row are read once. Throws IoError.
  void read(const StoredTensor& tensor, std::span<const RowUse> uses);

private:
  static constexpr unsigned kDepth = 32;

  std::size_t slot_;  ///< bytes of a read
  Buffer memory_;
  std::unique_ptr<AsyncReader> reader_;
  std::vector<RowUse> sorted_;
};

}  // namespace snug
