#pragma once
/// MODEL.gguf.kv-CODEC: what a codec has learned of a model (`snug calibrate`), as named arrays of f32 per layer.
///
/// Little endian. A header of 64 bytes (magic, version, number of arrays, fingerprint of the model, size, checksum), a
/// table with the name, layer, place and size of each array, the arrays one after the other. The checksum (XXH3-64)
/// is over all of the file, with 0 in its own place.

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

class KvTables {
public:
  /// Names are up to 39 bytes, by custom "key.WHAT" and "value.WHAT". REQUIRES: not there yet.
  void add(std::size_t layer, std::string name, std::vector<float> values);
  /// Empty when there is no such array.
  std::span<const float> find(std::size_t layer, std::string_view name) const;
  /// Throws FormatError unless there are `count` finite values.
  std::span<const float> get(std::size_t layer, std::string_view name, std::size_t count) const;
  std::vector<float> copy(std::size_t layer, std::string_view name, std::size_t count) const {
    const auto values = get(layer, name, count);
    return {values.begin(), values.end()};
  }
  Bytes bytes() const;
  const std::string& path() const { return path_; }

  /// Whole or not at all. Throws IoError.
  void write(const std::string& path, std::uint64_t fingerprint) const;
  /// Throws FormatError: not such a file, damaged, cut short, or of another model.
  static KvTables parse(const RandomAccessFile& file, std::uint64_t fingerprint);

private:
  std::string path_;
  std::map<std::pair<std::size_t, std::string>, std::vector<float>> arrays_;
};

/// Beside the model.
std::string kv_tables_path(const KvModel& model, std::string_view codec);
/// What `snug calibrate` wrote. Throws Error when it is missing, IoError, FormatError.
KvTables read_kv_tables(const KvModel& model, std::string_view codec);

}  // namespace snug
