#pragma once
/// A file descriptor or socket that is closed at the end.

#include <unistd.h>

#include <utility>

namespace snug {

class Descriptor {
public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }  ///< -1: none
  bool open() const { return fd_ >= 0; }

private:
  int fd_ = -1;
};

}  // namespace snug
