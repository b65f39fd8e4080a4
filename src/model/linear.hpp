#pragma once
/// Products of activations with weights, split over the pool.

#include <algorithm>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/thread_pool.hpp"
#include "kernels/kernels.hpp"
#include "weights/weight_source.hpp"

namespace snug {

/// Rows of activations in the forms that weights want: f32 for floating weights, int8 for quantised ones.
struct Input {
  const float* f32 = nullptr;
  std::size_t stride = 0;
  Q8Rows q8;
  std::size_t rows = 0;
};

/// A matrix, or rows of one (fused tensors), with an optional bias.
struct Linear {
  Weight weight;
  std::size_t group_begin = 0, rows = 0;
  std::vector<float> bias;  ///< f32[rows], of every expert one after the other; empty: none

  bool quantised() const {
    return weight.type != DType::f32 && weight.type != DType::f16 && weight.type != DType::bf16;
  }
  std::size_t groups() const { return (rows + kTileRows - 1) / kTileRows; }
  /// Bytes that one use reads.
  std::size_t bytes() const { return groups() * kTileRows * row_bytes(weight.type, weight.cols); }
};

/// Memory of one worker.
struct WorkerScratch {
  std::byte* matmul = nullptr;  ///< matmul_scratch_bytes
  float* first = nullptr;       ///< f32[max_rows][kChunkColumns]
  float* second = nullptr;      ///< the same
};

/// Most output columns that a worker computes before it goes on to what follows them.
inline constexpr std::size_t kChunkGroups = 4, kChunkColumns = kChunkGroups * kTileRows;
/// Up to so many rows a product is bound by reading weights, and chunks may be long.
inline constexpr std::size_t kFewRows = 8;

class Products {
public:
  Products(Ledger& ledger, ThreadPool& pool, WeightSource& source, std::size_t max_rows, std::size_t max_cols);
  /// The part of a worker's memory that grows with the rows.
  static Bytes column_bytes(std::size_t max_rows) {
    return 2 * std::max<Bytes>(max_rows, kFewRows) * kChunkColumns * sizeof(float);
  }

  struct Job {
    const Linear* linear;
    float* out;  ///< f32[rows][stride]
    std::size_t stride;
    bool add = false;  ///< out += instead of =
    std::uint32_t expert = 0;
    Input input;
  };
  /// All jobs in one parallel region. They must not write to the same place.
  void run(std::span<const Job> jobs);

  struct GatedJob {
    const Linear *gate, *up;  ///< an `up` without rows: gate's products take its place
    std::uint32_t expert = 0;
    Input input;
    float* out = nullptr;  ///< f32[rows][gate->rows]
  };
  /// act(gate, up, n, out) of the products of each job, while they are still in the cache.
  using Act = void (*)(const float* gate, const float* up, std::size_t n, float* out);
  void run_gated(std::span<const GatedJob> jobs, Act act);

  ThreadPool& pool() { return pool_; }
  WeightSource& source() { return source_; }

private:
  /// y[rows][16 * groups] of groups [begin, end) of a linear; bias added.
  void product(const Linear& linear, std::uint32_t expert, std::size_t begin, std::size_t end, const Input& input,
               float* y, std::size_t y_stride, std::byte* scratch);
  /// `bytes`: of a matrix. One that is large beside what is read ahead is asked for in one order, pass after pass:
  /// workers in stretches of their own get so far apart that the order of the last pass says nothing.
  template <class F>
  void share_out(std::size_t chunks, std::size_t grain, Bytes bytes, F&& fn) {
    const bool in_order = source_.streams() && bytes > source_.ahead_bytes() / 3;
    in_order ? pool_.parallel_in_order(chunks, 1, fn) : pool_.parallel_for(chunks, grain, fn);
  }

  ThreadPool& pool_;
  WeightSource& source_;
  Buffer memory_;
  std::vector<WorkerScratch> workers_;
};

}  // namespace snug
