#include "measure/disk_speed.hpp"

#include <algorithm>
#include <chrono>
#include <random>

#include "base/async_reader.hpp"
#include "base/buffer.hpp"
#include "base/error.hpp"

namespace snug {

namespace {

constexpr unsigned kDepth = 16;
constexpr std::size_t kAlign = 4096;

}  // namespace

double measure_disk_read(const std::string& path, std::size_t block, double seconds, Bytes memory) {
  const auto file = open_file(path, Caching::direct);
  block = std::min(round_up(block, kAlign), file->size() / kAlign * kAlign);
  if (block == 0) fail<IoError>("{} is too small to measure its disk", path);
  const Bytes blocks = file->size() / block;
  // On huge pages, as the buffers of streaming: where every page is a segment of its own, the disk is half as fast.
  Ledger unlimited(Ledger::kUnlimited);
  const Bytes slots = std::max<Bytes>(kDepth, memory / block);
  const Buffer into(unlimited, Tag::scratch, std::max<Bytes>(2 * kMiB, slots * block));
  const auto reader = AsyncReader::create(kDepth);

  Bytes next = std::random_device{}() % blocks, slot = 0, done = 0;
  const auto submit = [&](std::uint64_t tag) {
    reader->submit({file.get(), next++ % blocks * block, {into.data() + slot++ % slots * block, block}, tag});
  };
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
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
