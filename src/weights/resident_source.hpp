#pragma once
/// All weights in memory, packed on arrival: one copy, one buffer, charged to the ledger.

#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "base/thread_pool.hpp"
#include "format/gguf.hpp"
#include "weights/weight_source.hpp"

namespace snug {

class ResidentSource final : public WeightSource {
public:
  ResidentSource(Ledger& ledger, ThreadPool& pool) : ledger_(ledger), pool_(pool) {}

  /// Announces a tensor of shape [cols, rows] or [cols, rows, experts]. `as_f32` dequantises it on arrival.
  /// Throws FormatError when the kernels cannot multiply its type. REQUIRES: before load().
  Weight add(const GgufFile& file, const GgufTensor& tensor, bool as_f32 = false);
  /// Reads and packs everything announced. Throws IoError, OutOfBudget.
  void load();

  WeightSlice slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                    std::size_t group_end) override;
  void row(const Weight& weight, std::size_t row, float* out) override;

private:
  struct Entry {
    const RandomAccessFile* file = nullptr;
    DType file_type{};
    Weight weight;
    Bytes file_offset = 0;
    std::size_t offset = 0;  ///< in buffer_
    TileMatrix matrix(const std::byte* base, std::uint32_t expert) const;
  };
  void load_groups(const Entry& entry, std::size_t begin, std::size_t end, std::vector<std::byte>& scratch);

  Ledger& ledger_;
  ThreadPool& pool_;
  std::vector<Entry> entries_;
  std::size_t bytes_ = 0;
  Buffer buffer_;
};

}  // namespace snug
