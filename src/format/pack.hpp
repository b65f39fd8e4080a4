#pragma once
/// MODEL.gguf.snug: a copy of a model's matrices as the kernels multiply them (kernels/tile_matrix.hpp), laid out for
/// direct reads. Metadata and small tensors stay in the model.
///
/// A block of 4 KiB that begins with the magic "SNUGPACK"; the tensors; a table (JSON); the last 24 bytes: the table's
/// size and its XXH3-64, little-endian, and the magic again, so that what was cut off is not taken for a pack. Every
/// tensor begins at a multiple of 4 KiB. Of the matrices of a layer's experts, the parts of one expert follow each
/// other, each at a multiple of 4 KiB: one read brings all of it.

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "format/gguf.hpp"

namespace snug {

struct PackedTensor {
  std::string name;
  DType type{};
  std::uint32_t rows = 0, cols = 0, experts = 1;
  Bytes offset = 0;            ///< of expert 0
  Bytes expert_stride = 0;     ///< from one expert to the next
  std::uint64_t checksum = 0;  ///< XXH3-64 of the bytes of all experts in order, without what lies between them

  /// Of one expert: whole groups of 16 rows.
  Bytes expert_bytes() const;
};

class PackFile {
public:
  /// Everything but the tensors' checksums is checked. Throws IoError, FormatError("PATH: what is wrong").
  static PackFile open(const std::string& path);
  /// The same from a file that is open already (tests).
  static PackFile parse(std::unique_ptr<RandomAccessFile> file);

  /// model_fingerprint() of the model that it was made of.
  std::uint64_t model() const { return model_; }
  const PackedTensor* find(std::string_view name) const;
  const std::vector<PackedTensor>& tensors() const { return tensors_; }
  const RandomAccessFile& file() const { return *file_; }
  /// Reads all of it; throws FormatError naming a tensor whose checksum is another.
  void verify() const;

private:
  std::unique_ptr<RandomAccessFile> file_;
  std::vector<PackedTensor> tensors_;
  std::unordered_map<std::string, std::size_t> index_;
  std::uint64_t model_ = 0;
};

/// The two ends of a pack, around its tensors.
std::string pack_head();
std::string pack_tail(std::uint64_t model, const std::vector<PackedTensor>& tensors);
/// A table with the trailer behind it.
std::string seal_pack_table(std::string table);

/// Where the pack of a model lies: beside its file.
std::string pack_path(const std::string& model);

}  // namespace snug
