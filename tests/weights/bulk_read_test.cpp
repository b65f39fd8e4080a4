// Every range is read once and used once, whatever the threads and the memory; what goes wrong is told, once all have
// stopped.

#include "weights/bulk_read.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>

#include "base/error.hpp"
#include "support/gguf_writer.hpp"
#include "weights/pinned_bands.hpp"

namespace snug {
namespace {

using testing_support::MemoryFile;

std::string some_bytes(std::size_t n) {
  std::mt19937 random(1);
  std::string bytes(n, '\0');
  for (char& b : bytes) b = static_cast<char>(random());
  return bytes;
}

struct BulkReadTest : testing::TestWithParam<unsigned> {
  static constexpr std::size_t kCount = 100;
  const std::string bytes = some_bytes(400'000);
  Ledger ledger{Ledger::kUnlimited};
  ThreadPool pool{GetParam()};

  /// Of many lengths, some of them overlapping.
  std::vector<FileRange> ranges(const MemoryFile& file) const {
    std::vector<FileRange> all;
    for (std::size_t i = 0; i < kCount; ++i) all.push_back({&file, i * 3 * 1000 + i, 1 + i * 37 % 9000});
    return all;
  }
};

TEST_P(BulkReadTest, EveryRangeOnce) {
  const MemoryFile file(bytes);
  const auto all = ranges(file);
  for (const Bytes limit : {Ledger::kUnlimited, Bytes{4096}}) {  // the second has room for nothing
    ledger.set_limit(limit);
    std::vector<std::atomic<int>> seen(all.size());
    read_in_bulk(ledger, pool, {}, all, [&](std::size_t i, std::span<const std::byte> data) {
      ++seen[i];
      EXPECT_EQ(data.size(), all[i].size);
      EXPECT_EQ(std::memcmp(data.data(), bytes.data() + all[i].offset, data.size()), 0) << i;
    });
    for (const auto& count : seen) EXPECT_EQ(count, 1);
    EXPECT_EQ(ledger.report().used, 0u);
  }
}

TEST_P(BulkReadTest, AnErrorOfTheDisk) {
  const MemoryFile file(bytes, 150'000);
  const auto all = ranges(file);
  EXPECT_THROW(read_in_bulk(ledger, pool, {}, all, [](std::size_t, std::span<const std::byte>) {}), IoError);
}

TEST_P(BulkReadTest, AnErrorOfWhoUsesIt) {
  const MemoryFile file(bytes);
  const auto all = ranges(file);
  const auto refuse = [](std::size_t i, std::span<const std::byte>) {
    if (i == 40) fail("no more");
  };
  EXPECT_THROW(read_in_bulk(ledger, pool, {}, all, refuse), Error);
}

TEST_P(BulkReadTest, BandsHaveWhatIsInTheFile) {
  const MemoryFile file(bytes);
  StoredTensor tensor;
  tensor.file = &file;
  tensor.file_type = DType::f32;
  tensor.offset = 100;
  tensor.weight = {.id = 0, .type = DType::f32, .rows = 1000, .cols = 96, .experts = 1};
  tensor.expert_stride = 1000 * 96 * sizeof(float);
  PinnedBands bands(ledger, pool, 4);
  bands.set_tensors({&tensor});
  std::vector<std::byte> raw(tensor.file_group_bytes()), expected(tensor.group_bytes());
  for (const std::size_t count : {9u, 3u, 30u, 31u, 64u, 0u, 64u}) {
    const std::size_t before = bands.pinned_groups(tensor, bands.count()), pinned = bands.pinned_groups(tensor, count);
    EXPECT_EQ(bands.file_bytes(count), pinned > before ? (pinned - before) * tensor.file_group_bytes() : 0);
    bands.resize(count);
    EXPECT_EQ(ledger.report().used, bands.bytes());
    for (std::size_t group = 0; group < tensor.all_groups(); ++group) {
      const std::byte* there = bands.find(0, group, group + 1);
      ASSERT_EQ(there != nullptr, group < pinned) << count << " " << group;
      if (!there) continue;
      tensor.read_groups(group, group + 1, raw.data(), expected.data());
      EXPECT_EQ(std::memcmp(there, expected.data(), expected.size()), 0) << count << " " << group;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, BulkReadTest, ::testing::Values(1u, 2u, 5u));

}  // namespace
}  // namespace snug
