#include "base/async_reader.hpp"

#include <liburing.h>

#include <cassert>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "base/error.hpp"

namespace snug {

namespace {

ReadResult read_now(const ReadRequest& request) {
  try {
    request.file->read(request.offset, request.into);
    return {request.tag, ""};
  } catch (const std::exception& e) {
    return {request.tag, e.what()};
  }
}

class UringReader final : public AsyncReader {
public:
  explicit UringReader(unsigned depth) : depth_(depth), slots_(depth) {
    if (const int error = io_uring_queue_init(depth, &ring_, 0); error < 0)
      fail<IoError>("io_uring is not available: {}", std::strerror(-error));
    for (unsigned i = 0; i < depth; ++i) free_.push_back(i);
  }
  ~UringReader() override {
    try {
      while (in_flight() > 0) wait();
    } catch (const IoError&) {
      // The kernel no longer says what is done; leaving the ring cancels the rest.
    }
    io_uring_queue_exit(&ring_);
  }

  void submit(const ReadRequest& request) override {
    assert(in_flight() < depth_);
    if (request.file->descriptor() < 0 || request.into.empty()) {
      done_.push_back(read_now(request));
      return;
    }
    const unsigned slot = free_.back();
    free_.pop_back();
    slots_[slot] = {request, 0};
    start(slot);
  }

  std::vector<ReadResult> wait() override {
    while (done_.empty() && free_.size() < depth_) {
      io_uring_cqe* first = nullptr;
      const int error = io_uring_wait_cqe(&ring_, &first);
      if (error == -EINTR) continue;
      if (error < 0) fail<IoError>("io_uring failed: {}", std::strerror(-error));
      do {
        const auto slot = static_cast<unsigned>(io_uring_cqe_get_data64(first));
        const int read = first->res;
        io_uring_cqe_seen(&ring_, first);
        finish(slot, read);
      } while (io_uring_peek_cqe(&ring_, &first) == 0);
    }
    return std::exchange(done_, {});
  }

  std::size_t in_flight() const override { return depth_ - free_.size() + done_.size(); }
  const char* name() const override { return "io_uring"; }

private:
  struct Slot {
    ReadRequest request;
    std::size_t done = 0;
  };

  void start(unsigned slot) {
    const Slot& s = slots_[slot];
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    assert(entry);
    constexpr std::size_t kMost = std::size_t{1} << 30;
    const auto size = static_cast<unsigned>(std::min(kMost, s.request.into.size() - s.done));
    io_uring_prep_read(entry, s.request.file->descriptor(), s.request.into.data() + s.done, size,
                       s.request.offset + s.done);
    io_uring_sqe_set_data64(entry, slot);
    if (const int error = io_uring_submit(&ring_); error < 0)
      fail<IoError>("io_uring failed: {}", std::strerror(-error));
  }

  void finish(unsigned slot, int read) {
    Slot& s = slots_[slot];
    if (read == -EINTR || read == -EAGAIN) return start(slot);
    if (read > 0) {
      s.done += static_cast<std::size_t>(read);
      if (s.done < s.request.into.size()) return start(slot);
      done_.push_back({s.request.tag, ""});
    } else {
      // Errors, the end of the file, and ranges that direct files refuse: the ordinary read knows what to say or do.
      done_.push_back(read_now(s.request));
    }
    free_.push_back(slot);
  }

  unsigned depth_;
  io_uring ring_{};
  std::vector<Slot> slots_;
  std::vector<unsigned> free_;
  std::vector<ReadResult> done_;
};

class ThreadReader final : public AsyncReader {
public:
  explicit ThreadReader(unsigned depth) {
    // Disks want several requests at a time; more threads than this gain nothing.
    for (unsigned i = 0; i < std::min(depth, 8u); ++i) threads_.emplace_back([this] { work(); });
  }
  ~ThreadReader() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    asked_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void submit(const ReadRequest& request) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(request);
    }
    ++in_flight_;
    asked_.notify_one();
  }

  std::vector<ReadResult> wait() override {
    if (in_flight_ == 0) return {};
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !done_.empty(); });
    std::vector<ReadResult> results = std::exchange(done_, {});
    in_flight_ -= results.size();
    return results;
  }

  std::size_t in_flight() const override { return in_flight_; }
  const char* name() const override { return "threads"; }

private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      asked_.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const ReadRequest request = queue_.front();
      queue_.pop_front();
      lock.unlock();
      ReadResult result = read_now(request);
      lock.lock();
      done_.push_back(std::move(result));
      ready_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable asked_, ready_;
  std::deque<ReadRequest> queue_;
  std::vector<ReadResult> done_;
  bool closing_ = false;
  std::size_t in_flight_ = 0;  ///< of the owner
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<AsyncReader> AsyncReader::create(unsigned depth, Backend backend) {
  assert(depth >= 1 && depth <= 1024);
  if (backend != Backend::threads) {
    try {
      return std::make_unique<UringReader>(depth);
    } catch (const IoError&) {
      if (backend == Backend::io_uring) throw;
    }
  }
  return std::make_unique<ThreadReader>(depth);
}

}  // namespace snug
