#pragma once
/// A saved session: the tokens of a sequence and what the KV store holds of them, to go on in another process with the
/// same results to the bit.
///
/// Little endian. A header of 128 bytes (magic, version, fingerprints of the model and of what codecs have learned,
/// name of the format, sizes, checksum), a row per layer (its shape, and which pages are there: those of a layer are
/// consecutive but for the first, which coded formats keep as they are), the token ids (at positions 0, 1, ...), a
/// checksum (XXH3-64) of each page and of the recurrent state; then, from a multiple of 4 KiB on, the pages of each
/// layer in bf16, those that are coded, those that are cold, and the recurrent state of hybrid models.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "kv/kv_store.hpp"

namespace snug {

/// Writes the tokens and KV of a sequence to `path`, whole or not at all: a file that was there before stays until the
/// new one is complete on the disk. Throws IoError.
void write_kv_file(const std::string& path, std::uint64_t model, std::span<const std::int32_t> tokens,
                   const KvStore& store, std::span<const std::byte> recurrent);

class KvFile {
public:
  /// Reads all but the pages. Throws IoError, FormatError: not such a file, damaged, cut short.
  static KvFile open(const std::string& path);
  /// The same from an opened file; without `check` its head is taken as it is (fuzzing).
  static KvFile parse(std::unique_ptr<RandomAccessFile> file, bool check = true);

  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  std::uint64_t model() const { return model_; }
  /// Name of the KvFormat.
  const std::string& format() const { return format_; }

  /// Fills an empty store and the recurrent state. Throws FormatError: of another model or format, damaged;
  /// OutOfBudget. The store is to be thrown away then.
  void load(std::uint64_t model, KvStore& store, std::span<std::byte> recurrent) const;

private:
  void expect_matching(std::uint64_t model, const KvStore& store, std::size_t recurrent_bytes) const;

  std::unique_ptr<RandomAccessFile> file_;
  std::uint64_t model_ = 0, tables_ = 0;
  std::string format_;
  std::vector<std::int32_t> tokens_;
  std::vector<KvShape> shapes_;
  std::vector<KvHeld> held_;
  std::vector<std::uint64_t> checksums_;
  Bytes recurrent_bytes_ = 0, data_at_ = 0, data_bytes_ = 0;
};

}  // namespace snug
