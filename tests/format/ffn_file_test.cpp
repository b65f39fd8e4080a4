// Files of FFN neurons: written and read again; damaged, cut short and foreign ones are refused.

#include "format/ffn_file.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/ffn_files.hpp"
#include "support/gguf_writer.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct FfnFileTest : testing::Test {
  TemporaryFolder folder;
  std::string bytes = read_text_file(write_test_ffn(folder));

  static FfnFile parse(const std::string& bytes, std::uint64_t fingerprint = kTestModel) {
    return FfnFile::parse(std::make_unique<MemoryFile>(bytes), fingerprint);
  }
  static void read_all(const std::string& bytes) {
    const FfnFile file = parse(bytes);
    for (std::size_t layer = 0; layer < file.shape().neurons.size(); ++layer) {
      std::vector<std::byte> predictor(FfnPredictor::bytes_for(file.shape(), file.shape().neurons[layer]));
      if (!predictor.empty()) file.read_predictor(layer, predictor);
    }
  }
};

TEST_F(FfnFileTest, RoundTrip) {
  const FfnFile file = parse(bytes);
  const FfnShape& s = file.shape();
  EXPECT_EQ(s.width, 64u);
  EXPECT_EQ(s.rank, 32u);
  EXPECT_TRUE(s.gated);
  EXPECT_EQ(s.neurons, test_ffn_shape().neurons);
  std::vector<std::byte> predictor(FfnPredictor::bytes_for(s, 200));
  file.read_predictor(2, predictor);
  EXPECT_EQ(FfnPredictor::at(predictor.data(), s, 200).number[0], 199u);
  const FileRange range = file.bundles(2, 5, 7);
  ASSERT_EQ(range.size, 2 * s.bundle_bytes());
  std::vector<std::byte> bundles(range.size);
  range.file->read(range.offset, bundles);
  for (std::size_t i = 0; i < range.size; ++i)
    ASSERT_EQ(bundles[i], test_bundle_byte(2, 5 + i / s.bundle_bytes(), i % s.bundle_bytes()));
  EXPECT_NO_THROW(read_all(bytes));
}

TEST_F(FfnFileTest, OfAnotherModel) {
  EXPECT_THROW(parse(bytes, kTestModel + 1), FormatError);
}

TEST_F(FfnFileTest, CutShort) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{63}, std::size_t{64}, std::size_t{100},
                                 std::size_t{4096}, bytes.size() / 2, bytes.size() - 1})
    EXPECT_THROW(parse(bytes.substr(0, size)), FormatError) << size;
  EXPECT_THROW(parse(bytes + "x"), FormatError);
}

TEST_F(FfnFileTest, EveryDamagedByteOfHeaderAndTable) {
  for (std::size_t at = 0; at < 64 + 3 * 16; ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    EXPECT_THROW(parse(damaged), FormatError) << at;
  }
}

TEST_F(FfnFileTest, DamagedPredictors) {
  for (const std::size_t at : {std::size_t{4096}, std::size_t{4096 + 5000}}) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    EXPECT_THROW(read_all(damaged), FormatError) << at;
  }
}

}  // namespace
}  // namespace snug
