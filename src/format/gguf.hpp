#pragma once
/// GGUF v2 and v3 model files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), also split over several
/// files
/// (`NAME-00001-of-00003.gguf`). Every count, size and offset is checked against the file before it is used.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/file.hpp"
#include "kernels/dtype.hpp"

namespace snug {

/// A metadata array. Numbers of every width are widened; strings are kept apart so that 262,144 tokens stay cheap.
using GgufArray = std::variant<std::vector<std::int64_t>, std::vector<std::uint64_t>, std::vector<float>,
                               std::vector<double>, std::vector<bool>, std::vector<std::string>>;
using GgufValue = std::variant<std::int64_t, std::uint64_t, double, bool, std::string, GgufArray>;

struct GgufTensor {
  std::string name;
  DType type{};
  std::vector<std::uint64_t> shape;  ///< GGUF order: shape[0] is the row length (fastest), then rows, then experts
  unsigned file = 0;                 ///< which split
  Bytes offset = 0;                  ///< absolute in that file
  Bytes bytes = 0;

  std::uint64_t columns() const { return shape.empty() ? 1 : shape[0]; }
  /// Product of all dimensions but the first.
  std::uint64_t rows() const;
};

class GgufFile {
public:
  /// Opens PATH (of a split model: any of its files). Throws IoError, FormatError("PATH: what is wrong").
  static GgufFile open(const std::string& path);
  /// The same from already opened splits (tests, fuzzing).
  static GgufFile parse(std::vector<std::unique_ptr<RandomAccessFile>> files);

  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }
  const GgufValue* find(std::string_view key) const;

  /// Typed look-ups: nullopt when absent; throw FormatError naming the key when the type is wrong or out of range.
  std::optional<std::uint64_t> get_uint(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string_view> get_string(std::string_view key) const;
  const std::vector<std::string>* get_strings(std::string_view key) const;
  std::optional<std::vector<double>> get_numbers(std::string_view key) const;  ///< any numeric or bool array, widened

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;

  const RandomAccessFile& file(unsigned index) const { return *files_[index]; }
  std::size_t file_count() const { return files_.size(); }
  const std::string& path() const { return files_.front()->path(); }
  Bytes total_bytes() const;
  unsigned version() const { return version_; }

private:
  std::vector<std::unique_ptr<RandomAccessFile>> files_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::unordered_map<std::string, std::size_t> metadata_index_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, std::size_t> tensor_index_;
  unsigned version_ = 0;
};

}  // namespace snug
