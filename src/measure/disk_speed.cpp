#include "measure/disk_speed.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "base/async_reader.hpp"
#include "base/error.hpp"

namespace snug {

double measure_disk_read(const std::string& path, std::size_t block, double seconds) {
  constexpr unsigned kDepth = 16;
  constexpr std::size_t kAlign = 4096;
  constexpr Bytes kMost = 256 * kMiB;
  const auto file = open_file(path, Caching::direct);
  block = round_up(block, kAlign);
  const Bytes blocks = std::min<Bytes>(file->size(), kMost) / block;
  if (blocks == 0) return 0;
  const std::unique_ptr<std::byte, decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(kAlign, kDepth * block)), std::free);
  if (!memory) fail<IoError>("no memory to measure the disk");
  const auto reader = AsyncReader::create(kDepth);

  Bytes next = 0, done = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  const auto submit = [&](std::uint64_t tag) {
    const Bytes at = next++ % blocks * block;
    reader->submit({file.get(), at, {memory.get() + tag * block, block}, tag});
  };
  for (unsigned i = 0; i < kDepth; ++i) submit(i);
  while (reader->in_flight() > 0) {
    for (const ReadResult& result : reader->wait()) {
      if (!result.error.empty()) fail<IoError>("{}", result.error);
      done += block;
      if (elapsed() < seconds) submit(result.tag);
    }
  }
  return static_cast<double>(done) / elapsed();
}

}  // namespace snug
