#pragma once
/// KV pages of sequences that nobody computes with leave memory and come back, while others go on (FastSwitch,
/// arXiv 2411.18424: pages in groups, in the background, and what has a copy on the disk already is not written again).

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "kv/page_pool.hpp"
#include "kv/spill_file.hpp"

namespace snug {

struct KvSwapOptions {
  Bytes space = 0;          ///< on the disk, at most; 0: pages do not leave
  Bytes group = 2 * kMiB;   ///< read or written at a time; 0: page by page, where reads of neighbours are one
  bool background = true;   ///< false: whoever asks waits
  bool keep_copies = true;  ///< what has come back is not written again when it leaves once more

  bool on() const { return space > 0; }
};

/// Pages on their way.
class KvTransfer {
public:
  bool done() const;
  /// Empty: all went well. REQUIRES: done().
  const std::string& error() const { return error_; }

private:
  friend class KvSwap;
  struct Piece {
    std::byte* data;
    std::size_t size;
    Bytes offset;
  };
  bool reads_ = false;
  std::shared_ptr<SpillExtent> extent_;  ///< written to
  std::vector<Piece> pieces_;            ///< by offset
  std::vector<PageRef> pages_;           ///< stay until collect()
  std::vector<std::shared_ptr<PageCopy>> copies_;
  mutable std::mutex mutex_;
  bool done_ = false;
  std::string error_;
};

/// Used by the thread that owns the pages; a thread of its own moves bytes.
class KvSwap {
public:
  /// Throws IoError, OutOfBudget.
  KvSwap(Ledger& ledger, const KvSwapOptions& options, std::size_t most_page);
  ~KvSwap();
  KvSwap(const KvSwap&) = delete;
  KvSwap& operator=(const KvSwap&) = delete;

  /// Gives pages copies, where they have none, and lets them go when these are written.
  void write(std::vector<PageRef> pages);
  struct Return {
    PageRef page;
    std::shared_ptr<PageCopy> copy;
  };
  /// Fills pages from their copies, which they find when they are collected.
  std::shared_ptr<const KvTransfer> read(std::vector<Return> pages);

  /// Gives back the memory of what has been written. Pages that could not be written stay.
  void collect();
  /// Memory that collect() will give back some time.
  Bytes leaving_bytes() const;
  /// Until a transfer that is under way is done. Returns false when there is none.
  bool wait();
  Bytes memory_bytes() const { return staging_.size(); }
  /// On the disk.
  Bytes used_bytes() const { return file_->used_bytes(); }
  Bytes space() const { return options_.space; }
  struct Stats {
    Bytes written = 0, read = 0;
    std::uint64_t kept = 0;  ///< pages that had a copy when they left
  };
  const Stats& stats() const { return stats_; }
  /// Why the last transfer that failed did; empty: none has.
  const std::string& last_error() const { return last_error_; }

private:
  static void keep(PageRef page, PageCopy& copy);
  void run();
  void start(std::shared_ptr<KvTransfer> transfer);
  void move(KvTransfer& transfer);
  void write_group(std::span<const KvTransfer::Piece> pieces);
  void read_group(std::span<const KvTransfer::Piece> pieces);

  KvSwapOptions options_;
  std::size_t most_;  ///< read at a time
  std::shared_ptr<SpillFile> file_;
  Buffer staging_;
  Stats stats_;
  std::string last_error_;
  std::vector<std::shared_ptr<KvTransfer>> under_way_;  ///< of the owner's thread

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<std::shared_ptr<KvTransfer>> queue_;  ///< reads before writes
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace snug
