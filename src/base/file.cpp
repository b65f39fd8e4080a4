#include "base/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/descriptor.hpp"
#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::string_view kTemporarySuffix = ".XXXXXX";  // as mkostemp() wants it

class PosixFile final : public RandomAccessFile {
public:
  PosixFile(Descriptor fd, std::string path, const struct stat& info, bool direct)
      : fd_(std::move(fd)),
        path_(std::move(path)),
        size_(static_cast<Bytes>(info.st_size)),
        modified_(info.st_mtim),
        direct_(direct) {}
  Bytes size() const override { return size_; }
  const std::string& path() const override { return path_; }
  int descriptor() const override { return fd_.get(); }
  bool changed() const override {
    struct stat now{};
    return fstat(fd_.get(), &now) != 0 || static_cast<Bytes>(now.st_size) != size_ ||
           now.st_mtim.tv_sec != modified_.tv_sec || now.st_mtim.tv_nsec != modified_.tv_nsec;
  }

  void read(Bytes offset, std::span<std::byte> into) const override {
    if (offset > size_ || into.size() > size_ - offset)
      fail<IoError>("{} has {} bytes: cannot read {} at {}", path_, size_, into.size(), offset);
    if (direct_ && !aligned(offset, into))
      read_by_blocks(offset, into);
    else
      read_as_asked(offset, into);
  }

private:
  static constexpr std::size_t kBlock = kDirectBlock, kBounce = 64 * kBlock;

  static bool aligned(Bytes offset, std::span<std::byte> into) {
    return offset % kBlock == 0 && into.size() % kBlock == 0 &&
           reinterpret_cast<std::uintptr_t>(into.data()) % kBlock == 0;
  }

  /// Direct reads want whole blocks: they go through a buffer of their own.
  void read_by_blocks(Bytes offset, std::span<std::byte> into) const {
    const std::unique_ptr<std::byte, decltype(&std::free)> bounce(
        static_cast<std::byte*>(std::aligned_alloc(kBlock, kBounce)), std::free);
    if (!bounce) fail<IoError>("cannot read {}: no memory", path_);
    while (!into.empty()) {
      const Bytes begin = offset / kBlock * kBlock;
      const std::size_t skip = static_cast<std::size_t>(offset - begin);
      const ssize_t n = pread(fd_.get(), bounce.get(), kBounce, static_cast<off_t>(begin));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail<IoError>("cannot read {} at {}: {}", path_, offset, std::strerror(errno));
      if (static_cast<std::size_t>(n) <= skip)
        fail<IoError>("{} ends at {}: it is shorter than expected", path_, offset);
      const std::size_t got = std::min(into.size(), static_cast<std::size_t>(n) - skip);
      std::memcpy(into.data(), bounce.get() + skip, got);
      offset += got;
      into = into.subspan(got);
    }
  }

  void read_as_asked(Bytes offset, std::span<std::byte> into) const {
    while (!into.empty()) {
      const ssize_t n = pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail<IoError>("cannot read {} at {}: {}", path_, offset, std::strerror(errno));
      if (n == 0) fail<IoError>("{} ends at {}: it is shorter than expected", path_, offset);
      offset += static_cast<Bytes>(n);
      into = into.subspan(static_cast<std::size_t>(n));
    }
  }

  Descriptor fd_;
  std::string path_;
  Bytes size_;
  timespec modified_;
  bool direct_;
};

/// Writes at the end of a file, and lets the disk begin: a large file neither fills the page cache nor waits for all of
/// it to be synced at the end.
class Appender {
public:
  Appender(int fd, const std::string& path) : fd_(fd), path_(path) {}

  void append(std::span<const std::byte> bytes) {
    write_all(bytes);
    if (written_ - flushed_ < kFlushBytes) return;
    // Not more than hints: fsync() decides.
    sync_file_range(fd_, flushed_, written_ - flushed_,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    posix_fadvise(fd_, flushed_, written_ - flushed_, POSIX_FADV_DONTNEED);
    flushed_ = written_;
  }

private:
  static constexpr off_t kFlushBytes = 32 << 20;

  void write_all(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail<IoError>("cannot write {}: {}", path_, std::strerror(errno));
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      written_ += n;
    }
  }

  int fd_;
  const std::string& path_;
  off_t written_ = 0, flushed_ = 0;
};

}  // namespace

std::unique_ptr<RandomAccessFile> open_file(const std::string& path, Caching caching) {
  int fd = -1;
  if (caching == Caching::direct) fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  const bool direct = fd >= 0;
  if (fd < 0) fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail<IoError>("cannot open {}: {}", path, std::strerror(errno));
  Descriptor owned(fd);
  struct stat info{};
  if (fstat(fd, &info) != 0) fail<IoError>("cannot open {}: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail<IoError>("cannot open {}: not a regular file", path);
  return std::make_unique<PosixFile>(std::move(owned), path, info, direct);
}

void write_atomically(const std::string& path,
                      const std::function<void(const std::function<void(std::span<const std::byte>)>& append)>& write) {
  std::string temporary = path + std::string(kTemporarySuffix);
  const int fd = mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) fail<IoError>("cannot write {}: {}", path, std::strerror(errno));
  try {
    const Descriptor owned(fd);
    Appender appender(fd, path);
    write([&](std::span<const std::byte> bytes) { appender.append(bytes); });
    if (fchmod(fd, 0644) != 0 || fsync(fd) != 0) fail<IoError>("cannot write {}: {}", path, std::strerror(errno));
    if (rename(temporary.c_str(), path.c_str()) != 0) fail<IoError>("cannot write {}: {}", path, std::strerror(errno));
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) fsync(directory.get());
}

void remove_abandoned(const std::string& path) {
  const std::filesystem::path whole(path), folder = whole.parent_path();
  const std::string begin = whole.filename().string() + ".";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder.empty() ? "." : folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(begin) && name.size() == begin.size() + kTemporarySuffix.size() - 1)
      std::filesystem::remove(entry.path(), error);
  }
}

std::string read_text_file(const std::string& path, Bytes limit) {
  const auto file = open_file(path);
  if (file->size() > limit)
    fail<IoError>("{} is too large: {} where {} are allowed", path, format_bytes(file->size()), format_bytes(limit));
  std::string text(file->size(), '\0');
  file->read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace snug
