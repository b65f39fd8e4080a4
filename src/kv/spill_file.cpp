#include "kv/spill_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.hpp"

namespace snug {

SpillFile::SpillFile() {
  const char* folder = std::getenv("TMPDIR");
  path_ = folder && *folder ? folder : "/var/tmp";
  for (const int direct : {O_DIRECT, 0}) {
    fd_ = Descriptor(open(path_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | direct, 0600));
    if (fd_.open()) return;
  }
  std::string name = path_ + "/snug-kv-XXXXXX";
  fd_ = Descriptor(mkostemp(name.data(), O_CLOEXEC));
  if (!fd_.open())
    fail<IoError>("cannot make a file for KV pages in {}: {} (TMPDIR names another folder)", path_,
                  std::strerror(errno));
  unlink(name.c_str());
}

void SpillFile::read(Bytes offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t n = pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail<IoError>("cannot read KV pages from {}: {}", path_, n < 0 ? std::strerror(errno) : "the file is short");
    offset += static_cast<Bytes>(n);
    into = into.subspan(static_cast<std::size_t>(n));
  }
}

Bytes SpillFile::take(std::size_t bytes) {
  used_ += bytes;
  return end_.fetch_add(bytes);
}

void SpillFile::write(Bytes offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail<IoError>("cannot write KV pages to {}: {} (TMPDIR names another folder)", path_, std::strerror(errno));
    offset += static_cast<Bytes>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void SpillFile::give_back(Bytes offset, std::size_t size) noexcept {
  used_ -= size;
  // Where the file system cannot, the space comes back with the end of the process.
  fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
            static_cast<off_t>(size));
}

}  // namespace snug
