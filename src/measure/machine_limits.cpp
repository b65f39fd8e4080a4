#include "measure/machine_limits.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/buffer.hpp"
#include "kernels/kernels.hpp"

namespace snug {

namespace {

template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double measure_read_bandwidth(ThreadPool& pool, Ledger& ledger, Bytes bytes, int repeats) {
  constexpr std::size_t kChunk = 4 * kMiB;
  const std::size_t chunks = std::max<std::size_t>(1, bytes / kChunk);
  const Buffer buffer(ledger, Tag::scratch, chunks * kChunk);
  std::memset(buffer.data(), 1, buffer.size());
  std::atomic<std::uint64_t> sink{0};
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const double seconds = seconds_of([&] {
      pool.parallel_for(chunks, 1, [&](std::size_t from, std::size_t to, unsigned) {
        sink += kernels().read_memory(buffer.data() + from * kChunk, (to - from) * kChunk);
      });
    });
    best = std::max(best, static_cast<double>(chunks * kChunk) / seconds);
  }
  return best;
}

double measure_decode_bandwidth(ThreadPool& pool, Ledger& ledger, Bytes bytes, int repeats) {
  // Of the size that models have; each product ends with all threads meeting, as theirs do.
  constexpr std::size_t kCols = 2048, kRows = 2048, kChunkGroups = 4;
  const Bytes each = tile_matrix_bytes(DType::q4_k, kRows, kCols);
  const std::size_t matrices = std::max<std::size_t>(1, bytes / each), groups = kRows / kTileRows;
  const std::size_t scratch = round_up(matmul_scratch_bytes(kCols), 64);
  const Buffer weights(ledger, Tag::scratch, matrices * each), work(ledger, Tag::scratch, scratch * pool.size());
  std::memset(weights.data(), 1, weights.size());
  const Buffer input(ledger, Tag::scratch, Q8Rows::stride_for(kCols)),
      output(ledger, Tag::scratch, kRows * sizeof(float));
  const Q8Rows x{input.data(), 1, kCols};
  const std::vector<float> ones(kCols, 1.0f);
  kernels().quantize(ones.data(), x, 0);
  std::vector<double> rates;
  for (int i = 0; i < repeats; ++i) {
    const double seconds = seconds_of([&] {
      for (std::size_t m = 0; m < matrices; ++m) {
        const TileMatrix w{DType::q4_k, kRows, kCols, weights.data() + m * each};
        pool.parallel_for(groups / kChunkGroups, 4, [&](std::size_t from, std::size_t to, unsigned worker) {
          for (std::size_t c = from; c < to; ++c)
            kernels().matmul_q8(w, c * kChunkGroups, (c + 1) * kChunkGroups, x,
                                output.as<float>() + c * kChunkGroups * kTileRows, kRows,
                                work.data() + worker * scratch);
        });
      }
    });
    rates.push_back(static_cast<double>(weights.size()) / seconds);
  }
  std::nth_element(rates.begin(), rates.begin() + repeats / 2, rates.end());
  return rates[static_cast<std::size_t>(repeats / 2)];
}

double measure_int8_peak(ThreadPool& pool) {
  constexpr std::size_t kIterations = 2'000'000;
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    std::atomic<std::uint64_t> operations{0};
    const double seconds = seconds_of([&] {
      pool.parallel_for(pool.size(), 1,
                        [&](std::size_t, std::size_t, unsigned) { operations += kernels().int8_dots(kIterations); });
    });
    best = std::max(best, static_cast<double>(operations) / seconds);
  }
  return best;
}

}  // namespace snug
