#pragma once
/// Turns pages of keys back to what they were before rotation, and forward again. Angles of a page's first token are
/// kept per page, those within a page are the same for all: no sines are computed where tokens are decoded.

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/kv_lines.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

/// The tiles of one head's page as lines.
KvLines page_lines(KvSide side, std::size_t dim);

class RopePages {
public:
  explicit RopePages(const KvModel& model);

  /// Of the page that begins at `position`, a multiple of 64. Called from many threads at once. Throws Error for
  /// positions beyond 2^24.
  KvRotation at(std::size_t layer, std::size_t position) const;

  /// Key tiles of one head's page to lines before rotation, f32[k_dim][64], and back.
  void turn_back(std::size_t layer, std::size_t position, const bf16_t* tiles, float* lines) const;
  /// `lines` are used up.
  void turn(std::size_t layer, std::size_t position, float* lines, bf16_t* tiles) const;
  /// Channels of one head's page, f32[dim][64]: of keys as they were before rotation, and of values.
  void channels_of(KvSide side, std::size_t layer, std::size_t position, const bf16_t* tiles, float* channels) const;
  /// And back; `channels` are used up.
  void tiles_of(KvSide side, std::size_t layer, std::size_t position, float* channels, bf16_t* tiles) const;
  /// In place.
  void turn_tiles(std::size_t layer, std::size_t position, bf16_t* tiles) const;

private:
  static constexpr std::size_t kBlockPages = 64, kBlocks = 4096;
  /// Layers that rotate alike share one.
  struct Table {
    KvRope rope;
    std::vector<float> offset_cos, offset_sin;  ///< [pairs][64]
    /// Angles of 64 pages: cosines, then sines, [pages][pairs] each. Made when they are first asked for.
    mutable std::array<std::atomic<const float*>, kBlocks> blocks{};
    mutable std::mutex mutex;
    mutable std::vector<std::unique_ptr<float[]>> memory;
    const float* block(std::size_t index) const;
  };

  std::vector<std::shared_ptr<const Table>> tables_;  ///< of each layer; null: not rotated
  std::vector<std::size_t> dims_, value_dims_;        ///< the same
};

}  // namespace snug
