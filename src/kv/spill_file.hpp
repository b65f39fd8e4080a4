#pragma once
/// The unlinked file where KV pages go that leave memory.

#include <atomic>
#include <memory>
#include <string>

#include "base/descriptor.hpp"
#include "base/file.hpp"

namespace snug {

/// Past the page cache where the file system can. Space is not used again: what was read ahead from a place is never
/// something else's. Given back space is a hole. Thread-safe.
class SpillFile final : public RandomAccessFile {
public:
  /// In $TMPDIR or /var/tmp. Throws IoError.
  SpillFile();
  Bytes size() const override { return end_.load(); }
  const std::string& path() const override { return path_; }
  int descriptor() const override { return fd_.get(); }
  void read(Bytes offset, std::span<std::byte> into) const override;
  /// Space for so many bytes, a multiple of kDirectBlock; returns where it begins.
  Bytes take(std::size_t bytes);
  /// Throws IoError, e.g. when the disk is full.
  void write(Bytes offset, std::span<const std::byte> bytes);
  void give_back(Bytes offset, std::size_t size) noexcept;
  /// Taken and not given back.
  Bytes used_bytes() const { return used_.load(); }

private:
  std::string path_;
  Descriptor fd_;
  std::atomic<Bytes> end_{0}, used_{0};
};

/// Some space of it, given back at the end.
class SpillExtent {
public:
  SpillExtent(std::shared_ptr<SpillFile> file, std::size_t size)
      : file_(std::move(file)), offset_(file_->take(size)), size_(size) {}
  ~SpillExtent() { file_->give_back(offset_, size_); }
  SpillExtent(const SpillExtent&) = delete;
  SpillExtent& operator=(const SpillExtent&) = delete;
  FileRange range() const { return {file_.get(), offset_, size_}; }
  std::size_t size() const { return size_; }

private:
  std::shared_ptr<SpillFile> file_;
  Bytes offset_;
  std::size_t size_;
};

}  // namespace snug
