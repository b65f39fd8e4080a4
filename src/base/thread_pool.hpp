#pragma once
/// The one compute pool. The calling thread is worker 0; the others spin briefly for the next job, then sleep.

#include <cstddef>
#include <memory>
#include <type_traits>

namespace snug {

class ThreadPool {
public:
  /// `threads` >= 1, the caller included. 0: one per CPU that this process may use (affinity and cgroup quota).
  explicit ThreadPool(unsigned threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const { return size_; }

  /// Calls fn(begin, end, worker) over [0, n) in chunks of `grain` (the last may be shorter); returns when all are
  /// done. Each worker begins with its own stretch of [0, n), the same in every call, so that it meets in its caches
  /// what it wrote before; whoever is done helps the others. One job at a time, from one thread, not nested. The first
  /// exception thrown by fn is rethrown here. Which worker gets a chunk must never influence a result.
  template <class F>
  void parallel_for(std::size_t n, std::size_t grain, F&& fn) {
    run(n, grain, Order::by_worker, context_of(fn), call<F>);
  }
  /// The same with chunks handed out from first to last, whoever asks: for what is read in order.
  template <class F>
  void parallel_in_order(std::size_t n, std::size_t grain, F&& fn) {
    run(n, grain, Order::one_by_one, context_of(fn), call<F>);
  }

private:
  using Chunk = void (*)(void* context, std::size_t begin, std::size_t end, unsigned worker);
  enum class Order { by_worker, one_by_one };
  template <class F>
  static void* context_of(F& fn) {
    return const_cast<void*>(static_cast<const void*>(&fn));
  }
  template <class F>
  static void call(void* context, std::size_t begin, std::size_t end, unsigned worker) {
    (*static_cast<std::remove_reference_t<F>*>(context))(begin, end, worker);
  }
  void run(std::size_t n, std::size_t grain, Order order, void* context, Chunk chunk);

  struct State;
  unsigned size_;
  std::unique_ptr<State> state_;
};

}  // namespace snug
