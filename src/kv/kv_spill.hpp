#pragma once
/// KV pages beyond a limit of memory: whole partitions of a layer go to an unlinked file, in the form in which queries
/// see them, and are read back each time attention comes to them, in the order of the last pass
/// (weights/read_ahead.hpp). Nothing is lost: results are those of pages in memory.

#include <functional>
#include <memory>
#include <mutex>

#include "kv/kv_shape.hpp"
#include "kv/spill_file.hpp"
#include "weights/read_ahead.hpp"

namespace snug {

struct KvSpillOptions {
  /// A limit: pages go when nothing else leaves room for new ones in the ledger.
  static constexpr Bytes kUnderPressure = ~Bytes{0};
  Bytes limit = 0;                        ///< of pages in memory; 0: all of them stay
  std::size_t extent_bytes = 128 * kKiB;  ///< what goes to the disk at a time, at least
  Bytes recall = 0;                       ///< all pages go, and so much memory brings some back (kv_recall.hpp)

  bool spills() const { return limit > 0 || recall > 0; }
};

class KvSpill {
public:
  /// `most_extent`: extent_bytes() of the pages that will come, at most. The file lies in $TMPDIR or /var/tmp. Throws
  /// IoError, OutOfBudget.
  KvSpill(Ledger& ledger, const KvSpillOptions& options, std::size_t most_extent);
  ~KvSpill();
  KvSpill(const KvSpill&) = delete;
  KvSpill& operator=(const KvSpill&) = delete;

  Bytes limit() const { return options_.limit; }
  /// Memory beside the pages: where extents are read to and written from.
  static Bytes memory_bytes(const KvSpillOptions& options, std::size_t most_extent);
  /// What an extent of pages takes on the disk.
  static std::size_t extent_bytes(const KvSpillOptions& options, std::size_t page_bytes);
  /// Pages of an extent: those of whole partitions.
  std::size_t extent_pages(std::size_t page_bytes) const { return extent_pages(options_, page_bytes); }
  /// On the disk now.
  Bytes disk_bytes() const;
  /// Extents that may be held at a time.
  std::size_t window() const;

  /// Pages on the disk, one after the other.
  using Extent = SpillExtent;
  /// `fill` writes page i. Throws IoError, e.g. when the disk is full.
  std::shared_ptr<const Extent> write(std::size_t pages, std::size_t page_bytes,
                                      const std::function<void(std::size_t i, std::byte* page)>& fill);
  /// Its pages, while the lease is held.
  ReadAhead::Lease read(const Extent& extent);

private:
  static std::size_t extent_pages(const KvSpillOptions& options, std::size_t page_bytes);

  KvSpillOptions options_;
  std::size_t slots_;
  std::shared_ptr<SpillFile> file_;
  Buffer outgoing_;
  ReadAhead reader_;
};

}  // namespace snug
