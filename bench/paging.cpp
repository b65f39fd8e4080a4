/// Pages of 64 tokens from a pool (PagedAttention, arXiv 2309.06180) beside contiguous virtual ranges whose physical
/// memory is committed by need (vAttention, arXiv 2405.04437): waste while 200 sequences of mixed lengths come, grow
/// and go; what a growing sequence pays for memory; how fast attention reads either. And what a fork costs.
///   paging        (shapes of qwen2.5-0.5b: 24 layers, 2 KV heads of 64 dimensions)

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "base/error.hpp"
#include "kernels/attention_part.hpp"
#include "kv/kv_store.hpp"

namespace snug {
namespace {

constexpr std::size_t kLayers = 24, kSequences = 200, kMostTokens = 8192, kAtOnce = 24;
const KvShape kShape{2, 64, 64, 0};
const std::size_t kTokenBytes = kShape.page_bytes() / kPageTokens;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// One range of address space per layer, for the most tokens there can be; committed `step` bytes at a time.
class VirtualStore {
public:
  explicit VirtualStore(std::size_t step) : step_(step), room_(round_up(kMostTokens * kTokenBytes, step)) {
    memory_ = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) fail<IoError>("no address space");
    begin_ = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<std::uintptr_t>(memory_), kHugePage));
    madvise(begin_, kLayers * room_, step % kHugePage ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
  }
  VirtualStore(const VirtualStore&) = delete;
  VirtualStore& operator=(const VirtualStore&) = delete;
  ~VirtualStore() { munmap(memory_, bytes()); }

  void reserve(std::size_t tokens) {
    const std::size_t wanted = round_up(tokens * kTokenBytes, step_);
    for (std::size_t layer = 0; layer < kLayers && wanted > committed_; ++layer)
      madvise(layer_at(layer) + committed_, wanted - committed_, MADV_POPULATE_WRITE);
    committed_ = std::max(committed_, wanted);
  }
  /// In the layout of pages, one after the other.
  std::byte* page(std::size_t layer, std::size_t page) const { return layer_at(layer) + page * kShape.page_bytes(); }
  Bytes committed() const { return kLayers * committed_; }

private:
  static constexpr Bytes kHugePage = 2 * kMiB;
  Bytes bytes() const { return kLayers * room_ + kHugePage; }
  std::byte* layer_at(std::size_t layer) const { return begin_ + layer * room_; }

  std::size_t step_, room_, committed_ = 0;
  void* memory_;
  std::byte* begin_ = nullptr;
};

struct Waste {
  double mean = 0, at_peak = 0;
  Bytes peak = 0, left = 0;  ///< charged at most; when all are gone
};

/// kAtOnce sequences at a time grow to lengths between 64 and kMostTokens (evenly by their logarithm); whoever is done
/// makes room for the next. `make()` gives a store, `charged()` what all of them take.
template <class Make, class Charged>
Waste mixed_sequences(Make make, Charged charged) {
  using Store = decltype(make());
  struct Live {
    Store store;
    std::size_t tokens, goal;
  };
  std::mt19937 random(1);
  std::uniform_real_distribution<double> logarithm(std::log(64.0), std::log(static_cast<double>(kMostTokens)));
  std::vector<Live> live;
  Waste waste;
  double used_sum = 0, charged_sum = 0;
  for (std::size_t started = 0; started < kSequences || !live.empty();) {
    while (started < kSequences && live.size() < kAtOnce) {
      live.push_back({make(), 0, static_cast<std::size_t>(std::exp(logarithm(random)))});
      ++started;
    }
    Bytes used = 0;
    for (Live& l : live) {
      l.tokens = std::min(l.goal, l.tokens + 16);
      l.store->reserve(l.tokens);
      used += l.tokens * kTokenBytes * kLayers;
    }
    const Bytes all = charged(live);
    used_sum += static_cast<double>(used), charged_sum += static_cast<double>(all);
    if (all > waste.peak) waste.peak = all, waste.at_peak = 1 - static_cast<double>(used) / static_cast<double>(all);
    std::erase_if(live, [](const Live& l) { return l.tokens == l.goal; });
  }
  waste.mean = 1 - used_sum / charged_sum;
  waste.left = charged(live);
  return waste;
}

void print(const char* name, const Waste& w, double seconds) {
  fmt::print("{:<34} waste {:>5.2f}% on average, {:>5.2f}% at the peak of {}; {} left at the end; {:.2f} s\n", name,
             100 * w.mean, 100 * w.at_peak, format_bytes(w.peak), format_bytes(w.left), seconds);
}

std::byte* page_of(KvStore& store, std::size_t layer, std::size_t page) {
  return reinterpret_cast<std::byte*>(store.key_tile(layer, 0, page * kPageTiles));
}
std::byte* page_of(VirtualStore& store, std::size_t layer, std::size_t page) {
  return store.page(layer, page);
}

/// Microseconds per token of growing to 4096 tokens, memory touched.
template <class Make>
double growth_cost(Make make, std::size_t step) {
  std::vector<double> times;
  for (int round = 0; round < 5; ++round) {
    auto store = make();
    const double start = now();
    for (std::size_t tokens = step; tokens <= 4096; tokens += step) store->reserve(tokens);
    for (std::size_t layer = 0; layer < kLayers; ++layer)
      for (std::size_t page = 0; page < 4096 / kPageTokens; ++page)
        for (std::size_t at = 0; at < kShape.page_bytes(); at += 4096) page_of(*store, layer, page)[at] = std::byte{1};
    times.push_back((now() - start) / 4096 * 1e6);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// GB/s of keys and values that a decode step with 7 queries per head reads from `page(layer, number)`.
template <class Page>
double attention_speed(std::size_t tokens, Page page) {
  constexpr std::size_t kQueries = 7, kDim = 64;
  const std::vector<bf16_t> queries(kQueries * kDim, 0x3d80);
  const std::vector<std::uint32_t> begin(kQueries, 0), end(kQueries, kPartTokens);
  std::vector<AttentionState> state(kQueries);
  std::vector<float> acc(kQueries * kDim);
  std::vector<std::byte> scratch(attention_scratch_bytes(kQueries));
  std::vector<const bf16_t*> keys, values;
  for (std::size_t layer = 0; layer < kLayers; ++layer)
    for (std::size_t head = 0; head < kShape.kv_heads; ++head)
      for (std::size_t p = 0; p < tokens / kPageTokens; ++p) {
        const auto* at = reinterpret_cast<const bf16_t*>(page(layer, p)) + head * kShape.head_values();
        for (std::size_t t = 0; t < kPageTiles; ++t) {
          keys.push_back(at + t * kv_tile_values(kDim));
          values.push_back(at + (kPageTiles + t) * kv_tile_values(kDim));
        }
      }
  std::vector<double> times;
  for (int round = 0; round < 31; ++round) {
    const double start = now();
    for (std::size_t at = 0; at < keys.size(); at += kPartTiles) {
      AttentionPart part{keys.data() + at, values.data() + at, kPartTiles, kDim, kDim};
      part.next_tiles = at + kPartTiles < keys.size() ? kPartTiles : 0;
      part.next_keys = keys.data() + at + kPartTiles;
      kernels().attend(part, queries.data(), kQueries, begin.data(), end.data(), 0.0f, state.data(), acc.data(),
                       scratch.data());
    }
    times.push_back(now() - start);
  }
  std::sort(times.begin(), times.end());
  return static_cast<double>(tokens * kTokenBytes * kLayers) / times[times.size() / 4] / 1e9;
}

void run() {
  const std::vector<KvShape> shapes(kLayers, kShape);
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, shapes);
  const auto paged = [&] { return std::make_unique<KvStore>(pools, 64); };
  const auto timed = [](const char* name, auto make, auto charged) {
    const double start = now();
    const Waste waste = mixed_sequences(make, charged);
    print(name, waste, now() - start);
  };
  timed("pages of 64 tokens", paged, [&](const auto&) { return ledger.report().used; });
  for (const std::size_t step : {Bytes{4} << 10, Bytes{64} << 10, Bytes{2} << 20})
    timed(
        fmt::format("virtual ranges, steps of {}", format_bytes(step)).c_str(),
        [step] { return std::make_unique<VirtualStore>(step); },
        [](const auto& live) {
          Bytes all = 0;
          for (const auto& l : live) all += l.store->committed();
          return all;
        });
  fmt::print("memory for one more token (prefill of 512 at a time / one by one): pages {:.1f} / {:.1f} us",
             growth_cost(paged, 512), growth_cost(paged, 1));
  for (const std::size_t step : {Bytes{64} << 10, Bytes{2} << 20}) {
    const auto make = [step] { return std::make_unique<VirtualStore>(step); };
    fmt::print(", ranges in steps of {} {:.1f} / {:.1f} us", format_bytes(step), growth_cost(make, 512),
               growth_cost(make, 1));
  }
  fmt::print("\n");

  // Pages of four sequences that grew together, so that those of one lie apart.
  constexpr std::size_t kTokens = 8192;
  std::vector<std::unique_ptr<KvStore>> stores;
  for (int i = 0; i < 4; ++i) stores.push_back(paged());
  for (std::size_t tokens = kPageTokens; tokens <= kTokens; tokens += kPageTokens)
    for (auto& store : stores) store->reserve(tokens);
  const auto virtual_4k = std::make_unique<VirtualStore>(64 << 10),
             virtual_2m = std::make_unique<VirtualStore>(2 << 20);
  virtual_4k->reserve(kTokens), virtual_2m->reserve(kTokens);
  // Zeros share one physical page until they are written to.
  for (std::size_t layer = 0; layer < kLayers; ++layer)
    for (std::size_t p = 0; p < kTokens / kPageTokens; ++p)
      for (std::byte* at : {page_of(*stores[1], layer, p), virtual_4k->page(layer, p), virtual_2m->page(layer, p)})
        std::fill_n(at, kShape.page_bytes(), std::byte{0x3c});
  for (int round = 0; round < 3; ++round)
    fmt::print(
        "attention at {} tokens, one thread: pages {:.1f} GB/s, contiguous ranges {:.1f} GB/s, of 2 MiB steps {:.1f} "
        "GB/s\n",
        kTokens, attention_speed(kTokens, [&](auto l, auto p) { return page_of(*stores[1], l, p); }),
        attention_speed(kTokens, [&](auto l, auto p) { return virtual_4k->page(l, p); }),
        attention_speed(kTokens, [&](auto l, auto p) { return virtual_2m->page(l, p); }));

  stores[1]->trim(kTokens);
  stores[1]->trim(4096 + 10);
  const Bytes before = ledger.report().used;
  constexpr int kForks = 100;
  std::vector<std::unique_ptr<KvStore>> forks;
  const double start = now();
  for (int i = 0; i < kForks; ++i) forks.push_back(stores[1]->fork());
  const double forked = now();
  const Bytes after = ledger.report().used;
  for (auto& fork : forks) fork->reserve(4096 + 11);
  const double written = now();
  fmt::print("fork of 4106 tokens ({}): {:.1f} us and {}; its first token copies {:.1f} us and {}\n",
             format_bytes(4106 * kTokenBytes * kLayers), (forked - start) / kForks * 1e6, format_bytes(after - before),
             (written - forked) / kForks * 1e6, format_bytes((ledger.report().used - after) / kForks));
}

}  // namespace
}  // namespace snug

int main() {
  snug::run();
}
