#pragma once
/// MODEL.gguf.ffn: the feed-forward neurons of a dense model, each in one piece, and a predictor of those that matter
/// (row-column bundling and low-rank predictors, LLM in a flash, arXiv 2312.11514).
///
/// Little endian. A header of 64 bytes (magic, version, shape, fingerprint of the model, checksum), a table with the
/// number of neurons and a checksum per layer, the layers' predictors, the layers' bundles, each part at a multiple of
/// 4 KiB. Vectors are int8 rows (kernels/int8_row.hpp).
/// A bundle is [gate row | up row | down column] of one neuron, without the gate where the model has none. Neurons lie
/// in the order of their activity, the busiest first; `number` says which of the model's each one is.
/// Header, table and predictors are checked against their checksums (XXH3-64); of the bundles only their place is.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/gguf.hpp"
#include "kernels/int8_row.hpp"

namespace snug {

struct FfnShape {
  std::uint32_t width = 0, rank = 0;  ///< multiples of 32
  bool gated = false;
  std::vector<std::uint32_t> neurons;  ///< per layer; 0: the layer has no dense block

  /// Rows with which a neuron reads its input.
  std::size_t inputs() const { return gated ? 2 : 1; }
  std::size_t bundle_bytes() const { return (inputs() + 1) * Int8Row::bytes_for(width); }
};

/// Predicts the products of a layer's gate and up rows with x: those of output i are outputs[i] . (inputs . x), give
/// or take spread[i].
struct FfnPredictor {
  const std::uint32_t* number;  ///< [neurons]: of each neuron in the model
  const float* weight;          ///< f32[neurons]: length of the down column, by which an activation counts
  const float* spread;          ///< f32[inputs * neurons]: gates first
  const std::byte* inputs;      ///< int8 rows [rank][width]
  const std::byte* outputs;     ///< int8 rows [inputs * neurons][rank]

  static std::size_t bytes_for(const FfnShape& shape, std::size_t neurons);
  static FfnPredictor at(const std::byte* data, const FfnShape& shape, std::size_t neurons);
};

class FfnFile {
public:
  /// Throws IoError, FormatError: not such a file, damaged, cut short, or of another model.
  static FfnFile open(const std::string& path, const GgufFile& model);
  /// The same from an opened file (tests).
  static FfnFile parse(std::unique_ptr<RandomAccessFile> file, std::uint64_t fingerprint);

  const FfnShape& shape() const { return shape_; }
  const std::string& path() const { return file_->path(); }
  /// Fills `into` (FfnPredictor::bytes_for() bytes, 8-byte aligned). Throws FormatError when it is damaged.
  void read_predictor(std::size_t layer, std::span<std::byte> into) const;
  /// Where the bundles [begin, end) of a layer lie.
  FileRange bundles(std::size_t layer, std::size_t begin, std::size_t end) const;

private:
  std::unique_ptr<RandomAccessFile> file_;
  FfnShape shape_;
  std::vector<std::uint64_t> checksums_;
  std::vector<Bytes> predictor_at_, bundles_at_;
};

/// Where the neurons of a model lie: beside it.
std::string ffn_path(const GgufFile& model);

/// `bundles(layer)` gives the bundles of a layer when they are about to be written.
void write_ffn_file(const std::string& path, std::uint64_t fingerprint, const FfnShape& shape,
                    const std::vector<std::vector<std::byte>>& predictors,
                    const std::function<std::vector<std::byte>(std::size_t layer)>& bundles);

}  // namespace snug
