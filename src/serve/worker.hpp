#pragma once
/// A thread that does what it is given, in the order in which it comes.

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace snug {

class Worker {
public:
  /// Must not throw.
  using Work = std::function<void()>;

  Worker() : thread_([this] { run(); }) {}
  ~Worker() { stop(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void add(Work work) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return;
      queue_.push_back(std::move(work));
    }
    wake_.notify_one();
  }
  /// Waits for the end of what is being done, and lets go of the rest.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
    queue_.clear();
  }

private:
  void run() {
    while (true) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      const Work work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> queue_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace snug
