#pragma once
/// Reads what will be asked for next, in the order of last time: a forward pass uses its weights in the same order
/// again and again, so each range remembers its successor, and a thread follows them ahead of use.

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"

namespace snug {

class ReadAhead {
public:
  struct Range {
    const RandomAccessFile* file = nullptr;
    Bytes offset = 0;
    std::size_t size = 0;
  };
  struct Lease {
    std::shared_ptr<const void> slot;
    const std::byte* data = nullptr;
  };

  /// Memory for `slots` ranges of at most `most_bytes`, charged to the ledger. `slots` must exceed the number of leases
  /// that are held at once.
  ReadAhead(Ledger& ledger, std::size_t slots, std::size_t most_bytes);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// The bytes of a range, valid while the lease is held. Thread-safe. Throws IoError.
  Lease get(const Range& range);

  static std::size_t slot_bytes(std::size_t most_bytes);

private:
  using Key = std::pair<const RandomAccessFile*, Bytes>;
  enum class State { free, reading, ready, used };
  struct Slot {
    State state = State::free;
    bool wanted = false;  ///< somebody waits for it
    Range range;
    std::byte* memory = nullptr;
    std::string error;
  };
  static Key key(const Range& range) { return {range.file, range.offset}; }

  void follow();
  bool start_next(AsyncReader& reader);
  void finish(const std::vector<ReadResult>& results);
  void drop(Slot& slot);
  std::size_t take_free(std::unique_lock<std::mutex>& lock);
  std::size_t read_now(const Range& range, std::unique_lock<std::mutex>& lock);
  Lease lease(std::size_t index);

  Buffer memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::map<Key, std::size_t> present_;  ///< reading or ready
  std::map<Key, Range> successor_;
  Key last_{}, ahead_{};  ///< asked for last; read last
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace snug
