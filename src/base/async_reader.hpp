#pragma once
/// Many reads in flight at once: io_uring where the kernel allows it (containers often do not), else a few threads.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.hpp"

namespace snug {

struct ReadRequest {
  const RandomAccessFile* file = nullptr;
  Bytes offset = 0;
  std::span<std::byte> into;  ///< stays valid until the result has been given
  std::uint64_t tag = 0;      ///< given back with the result
};

struct ReadResult {
  std::uint64_t tag = 0;
  std::string error;  ///< empty: `into` is filled
};

/// Used by one thread. Destruction waits for what is in flight.
class AsyncReader {
public:
  enum class Backend { automatic, io_uring, threads };
  /// Up to `depth` (1 to 1024) reads in flight. Throws IoError when Backend::io_uring is asked for and not allowed.
  static std::unique_ptr<AsyncReader> create(unsigned depth, Backend backend = Backend::automatic);
  virtual ~AsyncReader() = default;

  /// Starts a read. REQUIRES: in_flight() < depth.
  virtual void submit(const ReadRequest& request) = 0;
  /// Results that are there, at least one; empty when nothing is in flight.
  virtual std::vector<ReadResult> wait() = 0;
  virtual std::size_t in_flight() const = 0;
  virtual const char* name() const = 0;
};

}  // namespace snug
