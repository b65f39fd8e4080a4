#include "serve/token_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::size_t kFlushTokens = std::size_t{1} << 18;

}  // namespace

TokenFile::TokenFile(const std::string& folder) : folder_(folder) {
  std::string name = folder + "/.snug-tokens.XXXXXX";
  fd_ = Descriptor(mkostemp(name.data(), O_CLOEXEC));
  if (!fd_.open()) fail<IoError>("cannot write to {}: {}", folder, std::strerror(errno));
  unlink(name.c_str());
}

TokenFile::~TokenFile() {
  if (mapped_) munmap(mapped_, mapped_bytes_);
}

void TokenFile::add(std::span<const TokenId> tokens) {
  fresh_.insert(fresh_.end(), tokens.begin(), tokens.end());
  ends_.push_back((ends_.empty() ? 0 : ends_.back()) + tokens.size());
  if (fresh_.size() >= kFlushTokens) flush();
}

void TokenFile::flush() {
  auto bytes = std::as_bytes(std::span(fresh_));
  while (!bytes.empty()) {
    const ssize_t n = write(fd_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail<IoError>("cannot write to {}: {}", folder_, std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  fresh_.clear();
}

std::vector<std::span<const TokenId>> TokenFile::lists() {
  flush();
  const std::size_t all = ends_.empty() ? 0 : ends_.back();
  if (all > 0 && !mapped_) {
    mapped_bytes_ = all * sizeof(TokenId);
    void* at = mmap(nullptr, mapped_bytes_, PROT_READ, MAP_SHARED, fd_.get(), 0);
    if (at == MAP_FAILED) fail<IoError>("cannot map a file in {}: {}", folder_, std::strerror(errno));
    mapped_ = at;
  }
  const std::span tokens(static_cast<const TokenId*>(mapped_), all);
  std::vector<std::span<const TokenId>> lists;
  std::size_t begin = 0;
  for (const std::size_t end : ends_) lists.push_back(tokens.subspan(begin, end - begin)), begin = end;
  return lists;
}

}  // namespace snug
