#include "weights/bulk_read.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"
#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostSlots = 24, kLeastSlots = 2;

/// Workers take turns at the reader: whoever finds nothing to use waits for the disk, the others use what has come.
class BulkRead {
public:
  using Take = std::function<void(std::size_t, std::span<const std::byte>)>;

  BulkRead(Ledger& ledger, std::span<std::byte> scratch, std::span<const FileRange> ranges, const Take& take)
      : ranges_(ranges), take_(take) {
    std::size_t largest = 0;
    for (const FileRange& range : ranges) largest = std::max(largest, range.size);
    const std::size_t slot = FileRange::blocks_bytes(largest);
    const std::size_t most = std::min(kMostSlots, std::max(kLeastSlots, ranges.size()));
    if (scratch.size() / slot < std::max(kLeastSlots, most / 2)) scratch = allocate(ledger, slot, most);
    for (std::size_t at = 0; at + slot <= scratch.size() && slots_.size() < most; at += slot) {
      free_.push_back(slots_.size());
      slots_.push_back({scratch.data() + at, 0, {}});
    }
    reader_ = AsyncReader::create(static_cast<unsigned>(slots_.size()));
  }

  void work() {
    std::unique_lock lock(mutex_);
    try {
      while (done_ < ranges_.size() && !failed_) {
        if (!at_reader_) ask();
        if (!ready_.empty()) {
          use(lock);
        } else if (!at_reader_ && reader_->in_flight() > 0) {
          wait(lock);
        } else {
          changed_.wait(lock);
        }
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      failed_ = true;
      changed_.notify_all();
      throw;
    }
  }

private:
  struct Slot {
    std::byte* memory;
    std::size_t range;
    FileRange blocks;
  };

  std::span<std::byte> allocate(Ledger& ledger, std::size_t slot, std::size_t most) {
    const LedgerReport report = ledger.report();
    const Bytes free = report.limit > report.used ? report.limit - report.used : 0;
    const std::size_t slots = std::clamp<std::size_t>(static_cast<std::size_t>(free / slot), kLeastSlots, most);
    try {
      memory_ = Buffer(slots > kLeastSlots ? ledger : uncharged_, Tag::weights, slots * slot);
    } catch (const OutOfBudget&) {  // somebody was quicker
      memory_ = Buffer(uncharged_, Tag::weights, kLeastSlots * slot);
    }
    return {memory_.data(), memory_.size()};
  }

  /// REQUIRES: nobody is at the reader.
  void ask() {
    while (!free_.empty() && next_ < ranges_.size()) {
      Slot& slot = slots_[free_.back()];
      slot.range = next_;
      slot.blocks = ranges_[next_].whole_blocks();
      reader_->submit({slot.blocks.file, slot.blocks.offset, {slot.memory, slot.blocks.size}, free_.back()});
      free_.pop_back();
      ++next_;
    }
  }

  void wait(std::unique_lock<std::mutex>& lock) {
    at_reader_ = true;
    lock.unlock();
    const std::vector<ReadResult> results = reader_->wait();
    lock.lock();
    at_reader_ = false;
    for (const ReadResult& result : results) {
      if (!result.error.empty()) fail<IoError>("{}", result.error);
      ready_.push_back(result.tag);
    }
    changed_.notify_all();
  }

  void use(std::unique_lock<std::mutex>& lock) {
    const std::size_t index = ready_.front();
    ready_.pop_front();
    lock.unlock();
    const Slot& slot = slots_[index];
    const FileRange& range = ranges_[slot.range];
    take_(slot.range, {slot.memory + (range.offset - slot.blocks.offset), range.size});
    lock.lock();
    free_.push_back(index);
    ++done_;
    changed_.notify_all();
  }

  std::span<const FileRange> ranges_;
  const Take& take_;
  Ledger uncharged_;
  Buffer memory_;
  std::vector<Slot> slots_;
  std::unique_ptr<AsyncReader> reader_;  ///< waits for what is in flight before the memory goes
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::size_t> free_;
  std::deque<std::size_t> ready_;
  std::size_t next_ = 0, done_ = 0;
  bool at_reader_ = false, failed_ = false;
};

}  // namespace

void read_in_bulk(Ledger& ledger, ThreadPool& pool, std::span<std::byte> scratch, std::span<const FileRange> ranges,
                  const std::function<void(std::size_t, std::span<const std::byte>)>& take) {
  if (ranges.empty()) return;
  BulkRead bulk(ledger, scratch, ranges, take);
  pool.parallel_for(pool.size(), 1, [&](std::size_t, std::size_t, unsigned) { bulk.work(); });
}

}  // namespace snug
