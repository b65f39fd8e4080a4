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

struct KvFileHead;

/// Writes the tokens and KV of a sequence to `path`, whole or not at all: a file that was there before stays until the
/// new one is complete on the disk. Throws IoError.
void write_kv_file(const std::string& path, std::uint64_t model, std::span<const std::int32_t> tokens,
                   const KvStore& store, std::span<const std::byte> recurrent);

/// Of the format above; who reads another one refuses it.
inline constexpr std::uint32_t kKvFileVersion = 5;
inline constexpr std::size_t kKvPartBytes = 128 * kKiB;

/// The bytes that write_kv_file() would write, in parts, with pages where they are in memory: for another machine.
/// Pages are cut at the same tokens in every sequence, so sequences that begin alike have the same parts there.
class KvImage {
public:
  /// Stretches of memory, one after the other, of at most kKvPartBytes together.
  using Part = std::vector<std::span<const std::byte>>;

  /// What it is made from must stay as it is. REQUIRES: nothing of the store is on the disk.
  KvImage(std::uint64_t model, std::span<const std::int32_t> tokens, const KvStore& store,
          std::span<const std::byte> recurrent);
  ~KvImage();
  /// Reads pages, of about `bytes`, for their checksums. Returns whether there are more.
  bool prepare(Bytes bytes);
  /// All of it in order; the head comes first. REQUIRES: prepare() is done.
  const std::vector<Part>& parts() const { return parts_; }
  Bytes head_bytes() const { return head_bytes_.size(); }
  Bytes bytes() const { return bytes_; }

private:
  void add_run(std::size_t first_page, std::span<const std::span<const std::byte>> pages);

  std::unique_ptr<KvFileHead> head_;
  std::vector<std::byte> head_bytes_;              ///< and zeros, up to the pages
  std::vector<std::span<const std::byte>> pages_;  ///< and the recurrent state
  std::vector<Part> parts_;                        ///< those of the head come when it is complete
  Bytes bytes_ = 0;
};

class KvFile {
public:
  /// Reads all but the pages. Throws IoError, FormatError: not such a file, damaged, cut short.
  static KvFile open(const std::string& path);
  /// The same from an opened file, of which `there` bytes can be read by now, the head among them; without `check` its
  /// head is taken as it is (fuzzing).
  static KvFile parse(std::unique_ptr<RandomAccessFile> file, bool check = true, Bytes there = ~Bytes{0});

  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  std::uint64_t model() const { return model_; }
  const std::string& path() const { return file_->path(); }
  /// Name of the KvFormat.
  const std::string& format() const { return format_; }

  /// Gives an empty store its pages. Returns where they are, and the recurrent state after them, to be filled with what
  /// follows the head. Throws FormatError: of another model or format; OutOfBudget. The store is to be thrown away
  /// then.
  std::vector<std::span<std::byte>> prepare(std::uint64_t model, KvStore& store, std::span<std::byte> recurrent) const;
  /// Fills them. Throws FormatError: damaged.
  void fill(std::span<const std::span<std::byte>> pages) const;

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
