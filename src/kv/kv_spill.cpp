#include "kv/kv_spill.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/descriptor.hpp"
#include "base/error.hpp"

namespace snug {

namespace {

constexpr Bytes kStagingBytes = 16 * kMiB, kRecallStagingBytes = 4 * kMiB;
constexpr std::size_t kLeastSlots = 32, kMostSlots = 256;

std::size_t slots_for(const KvSpillOptions& options, std::size_t extent) {
  const Bytes staging = options.recall > 0 ? kRecallStagingBytes : kStagingBytes;
  return std::clamp<std::size_t>(staging / extent, kLeastSlots, kMostSlots);
}

}  // namespace

/// Space is not used again: what was read ahead from a place is never another extent's. Given back space is a hole.
class KvSpill::File final : public RandomAccessFile {
public:
  File() {
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
  Bytes size() const override { return end_.load(); }
  Bytes live() const { return live_.load(); }
  const std::string& path() const override { return path_; }
  int descriptor() const override { return fd_.get(); }
  void read(Bytes offset, std::span<std::byte> into) const override {
    while (!into.empty()) {
      const ssize_t n = pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        fail<IoError>("cannot read KV pages from {}: {}", path_, n < 0 ? std::strerror(errno) : "the file is short");
      offset += static_cast<Bytes>(n);
      into = into.subspan(static_cast<std::size_t>(n));
    }
  }
  /// Returns where they stand.
  Bytes append(std::span<const std::byte> bytes) {
    const Bytes begin = end_.load();
    Bytes at = begin;
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        fail<IoError>("cannot write KV pages to {}: {} (TMPDIR names another folder)", path_, std::strerror(errno));
      at += static_cast<Bytes>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    end_ = at;
    live_ += at - begin;
    return begin;
  }
  void give_back(Bytes offset, std::size_t size) noexcept {
    live_ -= size;
    // Where the file system cannot, the space comes back with the end of the process.
    fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
              static_cast<off_t>(size));
  }

private:
  std::string path_;
  Descriptor fd_;
  std::atomic<Bytes> end_{0};   ///< asked for by readers
  std::atomic<Bytes> live_{0};  ///< not given back
};

KvSpill::Extent::~Extent() {
  file_->give_back(offset_, size_);
}

FileRange KvSpill::Extent::range() const {
  return {file_.get(), offset_, size_};
}

std::size_t KvSpill::extent_pages(const KvSpillOptions& options, std::size_t page_bytes) {
  const std::size_t part = kPartPages * page_bytes;
  return (options.extent_bytes + part - 1) / part * kPartPages;
}

std::size_t KvSpill::extent_bytes(const KvSpillOptions& options, std::size_t page_bytes) {
  return round_up(extent_pages(options, page_bytes) * page_bytes, kDirectBlock);
}

Bytes KvSpill::memory_bytes(const KvSpillOptions& options, std::size_t most_extent) {
  return most_extent + slots_for(options, most_extent) * FileRange::blocks_bytes(most_extent);
}

KvSpill::KvSpill(Ledger& ledger, const KvSpillOptions& options, std::size_t most_extent)
    : options_(options),
      slots_(slots_for(options, most_extent)),
      file_(std::make_shared<File>()),
      outgoing_(ledger, Tag::kv, most_extent),
      reader_(ledger, slots_, most_extent, Tag::kv) {}

KvSpill::~KvSpill() = default;

Bytes KvSpill::disk_bytes() const {
  return file_->live();
}

std::size_t KvSpill::window() const {
  return slots_ / 4;
}

std::shared_ptr<const KvSpill::Extent> KvSpill::write(std::size_t pages, std::size_t page_bytes,
                                                      const std::function<void(std::size_t, std::byte*)>& fill) {
  const std::size_t size = round_up(pages * page_bytes, kDirectBlock);
  for (std::size_t i = 0; i < pages; ++i) fill(i, outgoing_.data() + i * page_bytes);
  const Bytes offset = file_->append({outgoing_.data(), size});
  return std::make_shared<Extent>(file_, offset, size);
}

ReadAhead::Lease KvSpill::read(const Extent& extent) {
  return reader_.get(extent.range(), extent.range().offset, extent.size());
}

}  // namespace snug
