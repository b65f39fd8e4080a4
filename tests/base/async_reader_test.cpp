#include "base/async_reader.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.hpp"
#include "support/gguf_writer.hpp"

namespace snug {
namespace {

class AsyncReaderTest : public testing::TestWithParam<AsyncReader::Backend> {
protected:
  void SetUp() override {
    try {
      reader = AsyncReader::create(4, GetParam());
    } catch (const IoError& e) {
      GTEST_SKIP() << e.what();
    }
    path = std::filesystem::temp_directory_path() / ("snug_async_" + std::to_string(getpid()));
    std::string bytes;
    for (int i = 0; i < 300000; ++i) bytes += static_cast<char>(i * 7 + i / 1000);
    content = bytes;
    std::ofstream(path, std::ios::binary) << bytes;
  }
  void TearDown() override { std::filesystem::remove(path); }

  std::unique_ptr<AsyncReader> reader;
  std::filesystem::path path;
  std::string content;
};

TEST_P(AsyncReaderTest, ReadsEverythingWhateverTheOrder) {
  for (const Caching caching : {Caching::page_cache, Caching::direct}) {
    const auto file = open_file(path, caching);
    std::string got(content.size(), '\0');
    constexpr std::size_t kStep = 10000;
    std::size_t started = 0, finished = 0;
    while (finished * kStep < content.size()) {
      while (started * kStep < content.size() && reader->in_flight() < 4) {
        const std::size_t at = started * kStep, n = std::min(kStep, content.size() - at);
        reader->submit({file.get(), at, std::as_writable_bytes(std::span(got).subspan(at, n)), started++});
      }
      for (const ReadResult& result : reader->wait()) {
        EXPECT_EQ(result.error, "");
        ++finished;
      }
    }
    EXPECT_EQ(got, content);
    EXPECT_TRUE(reader->wait().empty());
  }
}

TEST_P(AsyncReaderTest, ErrorsComeBackWithTheirTag) {
  const auto file = open_file(path);
  std::byte buffer[100];
  reader->submit({file.get(), content.size() - 50, buffer, 7});
  const testing_support::MemoryFile broken(std::string(1000, 'x'), 10);
  reader->submit({&broken, 0, buffer, 8});
  std::vector<ReadResult> results;
  while (reader->in_flight() > 0)
    for (ReadResult& r : reader->wait()) results.push_back(std::move(r));
  ASSERT_EQ(results.size(), 2u);
  for (const ReadResult& r : results) {
    EXPECT_TRUE(r.tag == 7 || r.tag == 8);
    EXPECT_NE(r.error, "");
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AsyncReaderTest,
                         testing::Values(AsyncReader::Backend::io_uring, AsyncReader::Backend::threads),
                         [](const auto& test) {
                           return test.param == AsyncReader::Backend::threads ? "Threads" : "IoUring";
                         });

}  // namespace
}  // namespace snug
