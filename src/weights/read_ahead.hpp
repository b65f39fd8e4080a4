#pragma once
/// Reads what will be asked for next, in the order of last time: a forward pass uses its weights in the same order
/// again and again, so each extent remembers its successor, and a thread follows them ahead of use. An extent is what
/// the disk is asked for at once; its parts may be asked for one by one, by several threads.

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"

namespace snug {

/// What streaming did since it began.
struct StreamStats {
  Bytes bytes_read = 0;
  std::uint64_t reads = 0;
  std::uint64_t late = 0;      ///< of them, when somebody waited for them already
  std::uint64_t restarts = 0;  ///< the order of last time did not hold
};

class ReadAhead {
public:
  using Range = FileRange;
  struct Lease {
    std::shared_ptr<const void> slot;
    const std::byte* data = nullptr;
  };

  /// Memory for `slots` extents of at most `most_bytes`, charged to the ledger. `slots` must exceed the number of
  /// threads that ask.
  ReadAhead(Ledger& ledger, std::size_t slots, std::size_t most_bytes, Tag tag = Tag::weights);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// Until an order has been seen: these follow each other, probably.
  void expect(const std::vector<Range>& order);

  /// Bytes [offset, offset + size) of the extent's file, which lie within the extent; valid while the lease is held.
  /// The extent stays until as many bytes of it have been asked for as it has. Thread-safe. Throws IoError.
  Lease get(const Range& extent, Bytes offset, std::size_t size);
  StreamStats stats() const;
  Bytes memory_bytes() const { return memory_.size(); }

private:
  using Key = std::pair<const RandomAccessFile*, Bytes>;
  /// `lost`: the reader failed while it wrote there, so nobody may use it again.
  enum class State { free, reading, ready, lost };
  struct Slot {
    State state = State::free;
    bool ahead = false;  ///< read by the thread, not by who asked
    Range extent;
    std::byte* memory = nullptr;
    std::size_t users = 0;  ///< leases, and threads that wait
    std::size_t asked = 0;  ///< bytes
    std::string error;
  };
  static Key key(const Range& range) { return {range.file, range.offset}; }

  void follow();
  void keep_reading(AsyncReader& reader, std::unique_lock<std::mutex>& lock);
  bool start_next(AsyncReader& reader);
  void claim(std::size_t index, const Range& extent, bool ahead);
  void forget(std::size_t index);
  void drop(std::size_t index);
  /// What comes after an extent; null when nobody knows.
  const Range* after(const Key& extent) const;
  bool is_soon(const Range& extent) const;
  std::size_t take_free(std::unique_lock<std::mutex>& lock);
  std::size_t read_now(const Range& extent, std::unique_lock<std::mutex>& lock);
  void release(std::size_t index);

  Buffer memory_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::map<Key, std::size_t> present_;         ///< slots that are reading or ready, and not all asked for
  std::map<Key, Range> successor_, expected_;  ///< seen; guessed before
  std::set<Key> early_;                        ///< asked for before the thread came to them
  Key last_{}, ahead_{};                       ///< begun last: by who asks, by the thread
  StreamStats stats_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace snug
