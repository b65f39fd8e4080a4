// Thread pool, sizes, files, memory limits.

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/memory_info.hpp"
#include "base/thread_pool.hpp"

namespace snug {
namespace {

namespace fs = std::filesystem;

TEST(ThreadPoolTest, EveryIndexOnce) {
  for (const unsigned threads : {1u, 2u, 5u}) {
    ThreadPool pool(threads);
    for (const std::size_t n : {0u, 1u, 7u, 1000u}) {
      std::vector<std::atomic<int>> seen(n);
      pool.parallel_for(n, 3, [&](std::size_t from, std::size_t to, unsigned worker) {
        EXPECT_LT(worker, threads);
        EXPECT_LE(to - from, 3u);
        for (std::size_t i = from; i < to; ++i) ++seen[i];
      });
      for (const auto& count : seen) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, InOrderNobodyBeginsBeforeWhatComesFirst) {
  for (const unsigned threads : {1u, 2u, 5u}) {
    ThreadPool pool(threads);
    std::atomic<std::size_t> begun{0};
    std::vector<std::atomic<int>> seen(1000);
    pool.parallel_in_order(1000, 3, [&](std::size_t from, std::size_t to, unsigned) {
      // Others may have taken the next chunks meanwhile, one each.
      EXPECT_LE(from, begun + 3 * threads);
      begun += to - from;
      for (std::size_t i = from; i < to; ++i) ++seen[i];
    });
    for (const auto& count : seen) EXPECT_EQ(count, 1);
  }
}

TEST(ThreadPoolTest, AnExceptionComesBackAndThePoolGoesOn) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(pool.parallel_for(100, 1,
                                   [](std::size_t from, std::size_t, unsigned) {
                                     if (from == 40) fail("at {}", from);
                                   }),
                 Error);
    std::atomic<int> done{0};
    pool.parallel_for(100, 1, [&](std::size_t, std::size_t, unsigned) { ++done; });
    EXPECT_EQ(done, 100);
  }
}

TEST(UnitsTest, Sizes) {
  EXPECT_EQ(parse_size("512MiB"), 512 * kMiB);
  EXPECT_EQ(parse_size("2G"), 2 * kGiB);
  EXPECT_EQ(parse_size("1.5GB"), 1'500'000'000u);
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("50%", 1000), 500u);
  for (const char* bad : {"", "x", "-1", "5XB", "1e400G", "999999999999T", "nan", "12 34"})
    EXPECT_THROW(parse_size(bad), UsageError) << bad;
  EXPECT_EQ(format_bytes(118 * kMiB), "118MiB");
  EXPECT_EQ(format_bytes(kGiB + kGiB / 2), "1.5GiB");
  EXPECT_THROW(checked_mul(1ull << 40, 1ull << 40), Error);
  EXPECT_THROW(checked_add(~0ull, 1), Error);
}

struct Folder {
  Folder() : path(fs::temp_directory_path() / ("snug-test-" + std::to_string(::getpid()))) {
    fs::create_directories(path);
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name) << text;
  }
};

TEST(FileTest, WritingIsAllOrNothing) {
  const Folder folder;
  const std::string path = (folder.path / "file").string();
  const auto write = [&](std::string text, bool fails) {
    write_atomically(path, [&](const auto& append) {
      append(std::as_bytes(std::span(text)));
      if (fails) fail("no more");
    });
  };
  write("old", false);
  EXPECT_THROW(write("new", true), Error);
  EXPECT_EQ(read_text_file(path), "old");
  write("new", false);
  EXPECT_EQ(read_text_file(path), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()),
            1);  // nothing left lying about
}

TEST(FileTest, ShortFilesAndMissingFilesAreErrors) {
  const Folder folder;
  folder.write("file", "12345");
  for (const Caching caching : {Caching::page_cache, Caching::direct}) {
    const auto file = open_file((folder.path / "file").string(), caching);
    std::vector<std::byte> three(3);
    file->read(2, three);
    EXPECT_EQ(static_cast<char>(three[0]), '3');
    EXPECT_THROW(file->read(3, three), IoError);
    EXPECT_THROW(file->read(1ull << 62, three), IoError);
  }
  EXPECT_THROW(open_file((folder.path / "none").string()), IoError);
  EXPECT_THROW(open_file(folder.path.string()), IoError);
  EXPECT_THROW(read_text_file((folder.path / "file").string(), 4), IoError);
}

constexpr const char* kMeminfo = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  800 kB\n";

TEST(MemoryInfoTest, CgroupVersion1) {
  const Folder root;
  root.write("proc/meminfo", kMeminfo);
  root.write("proc/self/cgroup", "5:memory:/a/b\n4:cpu,cpuacct:/a\n");
  root.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "409600\n");
  root.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "102400\n");
  root.write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  root.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n");
  root.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  const MemoryInfo info = memory_info(root.path.string());
  EXPECT_EQ(info.physical, 1000 * kKiB);
  EXPECT_EQ(info.limit, 409600u);
  EXPECT_EQ(info.charged, 102400u);
  EXPECT_EQ(default_budget(info), (409600u - 102400u) / 10 * 9);
  EXPECT_EQ(cgroup_cpu_quota(root.path.string()), 2u);
}

TEST(MemoryInfoTest, CgroupVersion2AndNone) {
  const Folder root;
  root.write("proc/meminfo", kMeminfo);
  root.write("proc/self/cgroup", "0::/user/app\n");
  root.write("sys/fs/cgroup/user/app/memory.max", "max\n");
  root.write("sys/fs/cgroup/user/memory.max", "204800\n");
  root.write("sys/fs/cgroup/user/memory.current", "4096\n");
  root.write("sys/fs/cgroup/user/app/cpu.max", "max 100000\n");
  const MemoryInfo info = memory_info(root.path.string());
  EXPECT_EQ(info.limit, 204800u);
  EXPECT_EQ(info.charged, 4096u);
  EXPECT_EQ(cgroup_cpu_quota(root.path.string()), 0u);
  fs::remove_all(root.path / "sys");
  const MemoryInfo free = memory_info(root.path.string());
  EXPECT_EQ(free.limit, free.physical);
  EXPECT_EQ(default_budget(free), 800 * kKiB / 10 * 9);
}

}  // namespace
}  // namespace snug
