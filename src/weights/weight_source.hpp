#pragma once
/// Where weights live, hidden from the forward pass: it asks for slices and gets tiles that are ready to multiply.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "kernels/tile_matrix.hpp"

namespace snug {

/// A matrix of the model, or a stack of matrices of one shape (experts). Small vectors (norms, biases) are not here:
/// they are always resident as f32.
struct Weight {
  std::uint32_t id = 0;  ///< index in the source
  DType type{};
  std::uint32_t rows = 0, cols = 0, experts = 1;

  std::size_t groups() const { return (rows + kTileRows - 1) / kTileRows; }
};

/// Rows of a weight in tile layout. Holding it keeps the bytes where they are.
struct WeightSlice {
  TileMatrix matrix;                  ///< rows and data of the slice: its group 0 is the slice's first group
  std::shared_ptr<const void> lease;  ///< empty when nothing needs to be held
};

/// How the tokens of one pass use the experts of a layer.
struct ExpertUses {
  std::span<const std::uint32_t> uses;   ///< [experts]: how many tokens chose each
  std::span<const std::uint8_t> likely;  ///< [experts]: 1 if the last token nearly chose it; may be empty
  std::uint32_t tokens = 0;
};

/// A row that is wanted as f32[cols].
struct RowUse {
  std::size_t row = 0;
  float* out = nullptr;
};

class WeightSource {
public:
  virtual ~WeightSource() = default;
  /// Groups [group_begin, group_end) of one matrix; waits until they are in memory. Thread-safe.
  virtual WeightSlice slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                            std::size_t group_end) = 0;
  /// Memory for slices that are read ahead of each use; 0 when all are in memory. Where it is not, one use should serve
  /// all rows.
  virtual Bytes ahead_bytes() const = 0;
  bool streams() const { return ahead_bytes() > 0; }
  /// Rows of a matrix (embedding look-up). By one thread at a time.
  virtual void rows(const Weight& weight, std::span<const RowUse> uses) = 0;

  /// Slices of experts are asked for in between: want_experts(), then next_experts() until it gives none, each time
  /// some that are in memory until the next call. `part`: any of the layer's expert weights. Throws IoError,
  /// OutOfBudget.
  virtual void want_experts(const Weight& part, const ExpertUses& uses) = 0;
  virtual std::vector<std::uint32_t> next_experts() = 0;
  /// Whether experts may have to be read: then it helps to know early which will be wanted.
  virtual bool caches_experts() const = 0;
  /// These will probably be wanted soon.
  virtual void expect_experts(const Weight& part, std::span<const std::uint32_t> experts) = 0;
};

}  // namespace snug
