#pragma once
/// Files behind an interface, so that tests can make them fail, run slow or change under a reader.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/units.hpp"

namespace snug {

/// A file read at positions; thread-safe.
class RandomAccessFile {
public:
  virtual ~RandomAccessFile() = default;
  virtual Bytes size() const = 0;
  virtual const std::string& path() const = 0;
  /// Fills all of `into` from `offset`; throws IoError on an error or a short file.
  virtual void read(Bytes offset, std::span<std::byte> into) const = 0;
  /// Whether it has been written to, or cut, since it was opened.
  virtual bool changed() const { return false; }
  /// File descriptor for asynchronous reads, or -1 when there is none.
  virtual int descriptor() const { return -1; }
};

/// Direct reads begin and end at multiples of it.
inline constexpr std::size_t kDirectBlock = 4096;

/// A stretch of a file.
struct FileRange {
  const RandomAccessFile* file = nullptr;
  Bytes offset = 0;
  std::size_t size = 0;

  /// Widened to whole blocks, as direct reads want them; at the end of the file it is not.
  FileRange whole_blocks() const {
    const Bytes begin = offset / kDirectBlock * kDirectBlock;
    const Bytes end = std::min(file->size(), round_up(offset + size, kDirectBlock));
    return {file, begin, static_cast<std::size_t>(end - begin)};
  }
  /// Memory that whole_blocks() of a range of `size` bytes needs at most.
  static std::size_t blocks_bytes(std::size_t size) { return round_up(size, kDirectBlock) + kDirectBlock; }
};

enum class Caching { page_cache, direct };

/// Opens for reading; `direct` bypasses the page cache where the file system allows it, else falls back silently.
/// Throws IoError("cannot open PATH: reason").
std::unique_ptr<RandomAccessFile> open_file(const std::string& path, Caching caching = Caching::page_cache);

/// Writes `path` whole or not at all: a temporary name beside it, fsync, rename, fsync of the directory. `write` gets a
/// function that appends bytes. Throws IoError (the temporary is removed).
void write_atomically(const std::string& path,
                      const std::function<void(const std::function<void(std::span<const std::byte>)>& append)>& write);

/// Removes what a write_atomically() of `path` that was killed has left; REQUIRES: none is at work.
void remove_abandoned(const std::string& path);

/// Whole file as a string; throws IoError; refuses more than `limit` bytes.
std::string read_text_file(const std::string& path, Bytes limit = 1ull << 30);

}  // namespace snug
