#include "measure/machine_limits.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

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
