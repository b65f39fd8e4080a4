// GGUF files: what is read back, and that no bad file does more than raise one clear error.

#include "format/gguf.hpp"

#include <gtest/gtest.h>

#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

TEST(GgufTest, MetadataOfEveryTypeComesBack) {
  GgufWriter w;
  w.add_raw<std::uint8_t>("u8", 0, 200);
  w.add_raw<std::int8_t>("i8", 1, -5);
  w.add_raw<std::uint16_t>("u16", 2, 60000);
  w.add_raw<std::int16_t>("i16", 3, -300);
  w.add_u32("u32", 4'000'000'000u);
  w.add_raw<std::int32_t>("i32", 5, -7);
  w.add_f32("f32", 1.5f);
  w.add_bool("yes", true);
  w.add_string("text", "hällo");
  w.add_raw<std::uint64_t>("u64", 10, 1ull << 60);
  w.add_raw<std::int64_t>("i64", 11, -(1ll << 60));
  w.add_raw<double>("f64", 12, 2.25);
  w.add_strings("words", {"a", "", "bc"});
  w.add_numbers<std::int32_t>("numbers", 5, {1, -2, 3});
  const GgufFile file = parse(w.bytes());
  EXPECT_EQ(file.get_uint("u8"), 200u);
  EXPECT_EQ(std::get<std::int64_t>(*file.find("i8")), -5);
  EXPECT_EQ(file.get_uint("u16"), 60000u);
  EXPECT_EQ(file.get_uint("u32"), 4'000'000'000u);
  EXPECT_EQ(file.get_float("f32"), 1.5);
  EXPECT_EQ(file.get_bool("yes"), true);
  EXPECT_EQ(file.get_string("text"), "hällo");
  EXPECT_EQ(file.get_uint("u64"), 1ull << 60);
  EXPECT_EQ(std::get<std::int64_t>(*file.find("i64")), -(1ll << 60));
  EXPECT_EQ(file.get_float("f64"), 2.25);
  EXPECT_EQ(*file.get_strings("words"), (std::vector<std::string>{"a", "", "bc"}));
  EXPECT_EQ(*file.get_numbers("numbers"), (std::vector<double>{1, -2, 3}));
  EXPECT_EQ(file.get_uint("absent"), std::nullopt);
  EXPECT_THROW(file.get_uint("text"), FormatError);
  EXPECT_THROW(file.get_uint("i32"), FormatError);  // negative
}

TEST(GgufTest, TensorsLieWhereTheFileSays) {
  GgufWriter w(2);
  w.add_tensor("first", {3, 2}, {1, 2, 3, 4, 5, 6});
  w.add_tensor("second", {1}, {7});
  const GgufFile file = parse(w.bytes());
  EXPECT_EQ(file.version(), 2u);
  const GgufTensor* t = file.find_tensor("second");
  ASSERT_NE(t, nullptr);
  float value = 0;
  file.file(0).read(t->offset, std::as_writable_bytes(std::span(&value, 1)));
  EXPECT_EQ(value, 7);
  EXPECT_EQ(file.find_tensor("first")->rows(), 2u);
  EXPECT_EQ(file.find_tensor("third"), nullptr);
}

TEST(GgufTest, EveryTruncationIsAnError) {
  const std::string whole = tiny_model({.vocab = 262, .layers = 1});
  ASSERT_NO_THROW(parse(whole));
  for (std::size_t n = 0; n < whole.size(); n += n < 6000 ? 1 : 997)
    EXPECT_THROW(parse(whole.substr(0, n)), Error) << n << " bytes";
}

TEST(GgufTest, EveryChangedByteIsReadOrRefused) {
  const std::string whole = tiny_model({.vocab = 260, .layers = 1});
  for (std::size_t at = 0; at < 7000; ++at)
    for (const char bits : {'\x01', '\x80', '\xff'}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ bits);
      try {
        parse(changed);
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      }
    }
}

/// The message of the error that a file gives.
std::string error_of(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(GgufTest, ErrorsSayWhatIsWrong) {
  std::string wrong_magic = tiny_model();
  wrong_magic[0] = 'X';
  EXPECT_NE(error_of(wrong_magic).find("GGUF"), std::string::npos);
  std::string wrong_version = tiny_model();
  wrong_version[4] = 99;
  EXPECT_NE(error_of(wrong_version).find("99"), std::string::npos);
  for (const std::size_t count_at : {8u, 16u}) {
    std::string absurd = tiny_model();
    absurd[count_at + 7] = 0x10;  // 2^60 tensors, 2^60 keys
    EXPECT_NE(error_of(absurd), "");
  }
  GgufWriter twice;
  twice.add_u32("key", 1);
  twice.add_u32("key", 2);
  EXPECT_NE(error_of(twice.bytes()).find("key"), std::string::npos);
  GgufWriter same;
  same.add_tensor("t", {1}, {1});
  same.add_tensor("t", {1}, {2});
  EXPECT_NE(error_of(same.bytes()).find("t"), std::string::npos);
  GgufWriter unknown;
  unknown.add_tensor("t", {32}, static_cast<DType>(999), std::string(64, 0));
  EXPECT_NE(error_of(unknown.bytes()).find("999"), std::string::npos);
  GgufWriter huge;
  huge.add_tensor("t", {1ull << 40, 1ull << 40}, DType::f32, std::string(64, 0));
  EXPECT_NE(error_of(huge.bytes()), "");
  GgufWriter past;
  past.add_tensor("t", {1000}, DType::f32, std::string(64, 0));
  EXPECT_NE(error_of(past.bytes()), "");
}

TEST(GgufTest, ReadErrorsAreReported) {
  const std::string whole = tiny_model();
  EXPECT_THROW(parse(whole, 1000), IoError);
}

}  // namespace
}  // namespace snug
