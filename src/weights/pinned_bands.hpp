#pragma once
/// The same share of every tensor in memory: the groups of each are cut into kBands bands, and the first bands of all
/// of them are pinned ("balanced locking", FlexInfer, arXiv 2503.03777: a pass then reads the same share of every
/// layer, and reading overlaps with computing all the way). Bands are given back last first. What would be left of a
/// tensor as a piece too small for the disk is pinned with it.

#include <span>
#include <vector>

#include "base/growing_buffer.hpp"
#include "base/thread_pool.hpp"
#include "weights/stored_tensor.hpp"

namespace snug {

class PinnedBands {
public:
  static constexpr std::size_t kBands = 64;
  /// Bounds of bands are multiples of `step` groups. `ledger` and `pool` outlive it.
  PinnedBands(Ledger& ledger, ThreadPool& pool, std::size_t step) : ledger_(ledger), pool_(pool), step_(step) {}

  /// The tensors by their number; REQUIRES: no bands yet. They outlive it. A null one has no bands.
  void set_tensors(std::vector<const StoredTensor*> tensors);
  /// Memory that the first `bands` take.
  Bytes bytes(std::size_t bands) const;
  /// Memory that bands give back goes there for a while, and comes from there; it outlives this. REQUIRES: no bands
  /// yet.
  void use_stock(PageStock* stock) { stock_ = stock; }
  /// Reads bands (through `scratch`, if it is large enough), or gives them back, until there are `bands`. Throws
  /// IoError, OutOfBudget: nothing has changed then.
  void resize(std::size_t bands, std::span<std::byte> scratch = {});

  std::size_t count() const { return count_; }
  Bytes bytes() const { return memory_.charged(); }
  /// Of the files: what resize() would read to have `bands`.
  Bytes file_bytes(std::size_t bands) const;
  /// First group (over all experts) of a tensor that is not in memory when `bands` are.
  std::size_t pinned_groups(const StoredTensor& tensor, std::size_t bands) const;
  /// Where groups [begin, end) of a tensor lie; null when they are not, or not all in one band.
  const std::byte* find(std::size_t tensor, std::size_t begin, std::size_t end) const;

private:
  struct Band {
    std::vector<std::size_t> offset;  ///< of each tensor, in memory_
    Bytes end = 0;
  };
  Bytes end_of(std::size_t bands) const { return bands == 0 ? 0 : bands_[bands - 1].end; }
  void lay_out();
  /// Reads the bands from `first` on.
  void fill(std::size_t first, std::span<std::byte> scratch);
  /// Which band has this group.
  std::size_t band_of(const StoredTensor& tensor, std::size_t group) const;
  std::byte* place_of(std::size_t tensor, std::size_t band, std::size_t group) const;

  Ledger& ledger_;
  ThreadPool& pool_;
  std::size_t step_;
  std::vector<const StoredTensor*> tensors_;
  PageStock* stock_ = nullptr;
  std::vector<Band> bands_;  ///< all of them, once some are wanted
  GrowingBuffer memory_;     ///< the first `count_` of them, one after the other
  std::size_t count_ = 0;
};

}  // namespace snug
