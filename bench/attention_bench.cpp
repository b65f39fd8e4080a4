/// Attention kernels: decode in GB/s of keys and values read, prefill in Tflops. Threads take heads of their own.
///   attention_bench [--benchmark_filter=...]        (SNUG_ISA chooses the instruction set)

#include <benchmark/benchmark.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "kernels/attention_part.hpp"
#include "kernels/kernels.hpp"
#include "kernels/kv_tile.hpp"

namespace snug {
namespace {

constexpr std::size_t kPageTiles = 4;
constexpr std::size_t kPartTiles = kPartTokens / kTileTokens;

/// Pages of 64 tokens, four key tiles and four value tiles each, as the KV store lays them.
class Cache {
public:
  Cache(std::size_t heads, std::size_t tokens, std::size_t dim)
      : parts_(tokens / kPartTokens), tile_(kv_tile_values(dim)), data_(heads * tokens * 2 * dim) {
    std::mt19937 generator(1);
    for (bf16_t& x : data_) x = static_cast<bf16_t>(0x3e00 + (generator() & 0x80ff));
    for (std::size_t t = 0; t < heads * parts_ * kPartTiles; ++t) {
      const bf16_t* page = data_.data() + t / kPageTiles * kPageTiles * 2 * tile_;
      keys_.push_back(page + t % kPageTiles * tile_);
      values_.push_back(page + (kPageTiles + t % kPageTiles) * tile_);
    }
  }
  AttentionPart part(std::size_t head, std::size_t index, std::size_t dim) const {
    const std::size_t first = (head * parts_ + index) * kPartTiles;
    AttentionPart part{keys_.data() + first, values_.data() + first, kPartTiles, dim, dim};
    part.next_keys = index + 1 < parts_ ? part.k_tiles + kPartTiles : nullptr;
    part.next_tiles = index + 1 < parts_ ? kPartTiles : 0;
    return part;
  }

private:
  std::size_t parts_, tile_;
  std::vector<bf16_t> data_;
  std::vector<const bf16_t*> keys_, values_;
};

/// What one thread needs to attend with m queries.
struct Worker {
  Worker(std::size_t m, std::size_t dim)
      : queries(m * dim, 0x3d80),
        begin(m, 0),
        end(m, kPartTokens),
        part_state(m),
        total_state(m),
        part_acc(m * dim),
        total_acc(m * dim),
        scratch(attention_scratch_bytes(m)),
        m_(m),
        dim_(dim) {}

  void head(const Cache& cache, std::size_t head, std::size_t parts) {
    const KernelTable& k = kernels();
    std::fill(total_state.begin(), total_state.end(), AttentionState{-std::numeric_limits<float>::infinity(), 0});
    for (std::size_t p = 0; p < parts; ++p) {
      k.attend(cache.part(head, p, dim_), queries.data(), m_, begin.data(), end.data(), 0.0f, part_state.data(),
               part_acc.data(), scratch.data());
      for (std::size_t i = 0; i < m_; ++i) {
        k.merge(total_state[i], total_acc.data() + i * dim_, part_state[i], part_acc.data() + i * dim_, dim_);
      }
    }
    benchmark::DoNotOptimize(total_acc.data());
  }

  std::vector<bf16_t> queries;
  std::vector<std::uint32_t> begin, end;
  std::vector<AttentionState> part_state, total_state;
  std::vector<float> part_acc, total_acc;
  std::vector<std::byte> scratch;

private:
  std::size_t m_, dim_;
};

/// The limit that decode is held against: plain reads of as many bytes.
void read_memory(benchmark::State& state) {
  constexpr std::size_t kBytes = 256u << 20;
  const std::vector<std::uint64_t> data(kBytes / sizeof(std::uint64_t) / static_cast<std::size_t>(state.threads()), 1);
  for (auto _ : state) {
    std::uint64_t sums[16] = {};
    for (std::size_t i = 0; i + 16 <= data.size(); i += 16) {
      for (std::size_t j = 0; j < 16; ++j) sums[j] += data[i + j];
    }
    benchmark::DoNotOptimize(sums);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(data.size() * sizeof(std::uint64_t)));
}
BENCHMARK(read_memory)->Threads(1)->Threads(2)->UseRealTime();

/// One step of decode at a depth of 16384 tokens: queries of one GQA group against heads that together exceed the
/// caches.
void decode(benchmark::State& state) {
  constexpr std::size_t kTokens = 16384, kBytes = 256u << 20;
  const auto m = static_cast<std::size_t>(state.range(0)), dim = static_cast<std::size_t>(state.range(1));
  const std::size_t heads = kBytes / (kTokens * dim * 4);
  static Cache* cache = nullptr;
  if (state.thread_index() == 0) cache = new Cache(heads, kTokens, dim);
  Worker worker(m, dim);
  const auto threads = static_cast<std::size_t>(state.threads()),
             first = static_cast<std::size_t>(state.thread_index());
  for (auto _ : state) {
    for (std::size_t h = first; h < heads; h += threads) worker.head(*cache, h, kTokens / kPartTokens);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kBytes / threads));
  if (state.thread_index() == 0) {
    delete cache;
    cache = nullptr;
  }
}
BENCHMARK(decode)
    ->ArgNames({"queries", "dim"})
    ->Args({7, 64})
    ->Args({3, 64})
    ->Args({4, 256})
    ->Args({8, 128})
    ->Threads(1)
    ->Threads(2)
    ->UseRealTime();

/// A chunk of prefill over 4096 earlier tokens of one head.
void prefill(benchmark::State& state) {
  constexpr std::size_t kTokens = 4096;
  const auto m = static_cast<std::size_t>(state.range(0)), dim = static_cast<std::size_t>(state.range(1));
  const Cache cache(1, kTokens, dim);
  Worker worker(m, dim);
  for (auto _ : state) worker.head(cache, 0, kTokens / kPartTokens);
  state.counters["Tflops"] =
      benchmark::Counter(4e-12 * static_cast<double>(m * kTokens * dim), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(prefill)->ArgNames({"queries", "dim"})->Args({448, 64})->Args({192, 64})->Args({256, 256})->Args({256, 128});

}  // namespace
}  // namespace snug

BENCHMARK_MAIN();
