#include "base/thread_pool.hpp"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/memory_info.hpp"

namespace snug {

namespace {

constexpr auto kSpin = std::chrono::microseconds(100);

unsigned allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = sched_getaffinity(0, sizeof(set), &set) == 0;
  const unsigned cpus =
      std::max(1u, known ? static_cast<unsigned>(CPU_COUNT(&set)) : std::thread::hardware_concurrency());
  const unsigned quota = cgroup_cpu_quota();
  return quota ? std::min(cpus, quota) : cpus;
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Spins while `value` is `old`, for as long as spinning is cheaper than a wake-up, then sleeps.
void wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  while (value.load(std::memory_order_acquire) == old) {
    for (int i = 0; i < 64; ++i) {
      pause();
      if (value.load(std::memory_order_acquire) != old) return;
    }
    if (std::chrono::steady_clock::now() > until) {
      value.wait(old, std::memory_order_acquire);
      return;
    }
  }
}

}  // namespace

/// A job is open while `epoch` is odd. Who takes part is counted in `inside` before it looks whether the job is still
/// open (both in the one order of sequentially consistent operations), and nobody may be inside when the next one is
/// written. A worker that sleeps, or has lost its processor to somebody else, is not waited for: the others do its
/// chunks.
struct ThreadPool::State {
  /// The chunks that a worker does first; others take from it when theirs are done.
  struct alignas(64) Segment {
    std::atomic<std::size_t> next{0};
    std::size_t end = 0;
  };

  explicit State(unsigned size) : segments(size) {}

  std::size_t grain = 1;
  void* context = nullptr;
  Chunk chunk = nullptr;
  alignas(64) std::atomic<std::uint32_t> epoch{0};
  alignas(64) std::atomic<std::uint32_t> inside{0};
  std::atomic<bool> stop{false}, failed{false};
  std::mutex error_mutex;
  std::exception_ptr error;
  std::vector<Segment> segments;
  std::vector<std::thread> workers;

  void work(unsigned worker) {
    try {
      for (std::size_t i = 0; i < segments.size(); ++i) {
        Segment& segment = segments[(worker + i) % segments.size()];
        while (!failed.load(std::memory_order_relaxed)) {
          const std::size_t begin = segment.next.fetch_add(grain, std::memory_order_relaxed);
          if (begin >= segment.end) break;
          chunk(context, begin, std::min(segment.end, begin + grain), worker);
        }
      }
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      failed = true;
    }
  }

  void worker_loop(unsigned worker) {
    for (std::uint32_t seen = 0;;) {
      wait_while(epoch, seen);
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      if (seen % 2 == 0) continue;
      inside.fetch_add(1);
      if (epoch.load() == seen) work(worker);
      if (inside.fetch_sub(1) == 1) inside.notify_one();
    }
  }
};

ThreadPool::ThreadPool(unsigned threads)
    : size_(threads ? threads : allowed_cpus()), state_(std::make_unique<State>(size_)) {
  // Reserved first: the vector's size is read by the workers and must be final before the first job.
  state_->workers.reserve(size_ - 1);
  for (unsigned i = 1; i < size_; ++i)
    state_->workers.emplace_back([state = state_.get(), i] { state->worker_loop(i); });
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->epoch.fetch_add(1, std::memory_order_release);
  state_->epoch.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

void ThreadPool::run(std::size_t n, std::size_t grain, Order order, void* context, Chunk chunk) {
  grain = std::max<std::size_t>(1, grain);
  if (n == 0) return;
  if (n <= grain || size_ == 1) {
    for (std::size_t begin = 0; begin < n; begin += grain) chunk(context, begin, std::min(n, begin + grain), 0);
    return;
  }
  State& s = *state_;
  s.grain = grain;
  s.context = context;
  s.chunk = chunk;
  const std::size_t chunks = (n + grain - 1) / grain;
  for (std::size_t i = 0; i < size_; ++i) {
    const bool shared = order == Order::one_by_one;  // all of it is the first worker's, and the others help
    s.segments[i].next.store(shared ? (i ? n : 0) : chunks * i / size_ * grain, std::memory_order_relaxed);
    s.segments[i].end = shared ? n : std::min(n, chunks * (i + 1) / size_ * grain);
  }
  s.epoch.fetch_add(1);
  s.epoch.notify_all();
  s.work(0);
  s.epoch.fetch_add(1);
  for (std::uint32_t inside; (inside = s.inside.load()) != 0;) wait_while(s.inside, inside);
  if (s.failed.load()) {
    s.failed = false;
    std::rethrow_exception(std::exchange(s.error, nullptr));
  }
}

}  // namespace snug
