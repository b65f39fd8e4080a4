// A pack says what it holds, and nothing that is damaged, cut off or impossible is taken for one.

#include "format/pack.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"
#include "support/gguf_writer.hpp"

namespace snug {
namespace {

using testing_support::MemoryFile;

constexpr std::uint64_t kModel = 0x123456789abcdef0;

PackedTensor tensor(const std::string& name, Bytes offset, std::uint32_t experts = 1) {
  return {name, DType::f32, 16, 64, experts, offset, kDirectBlock, 0};
}

std::string pack_of(const std::vector<PackedTensor>& tensors, std::size_t blocks = 4) {
  return pack_head() + std::string(blocks * kDirectBlock, 'x') + pack_tail(kModel, tensors);
}

PackFile parse(const std::string& bytes) {
  return PackFile::parse(std::make_unique<MemoryFile>(bytes));
}

TEST(PackTest, SaysWhatItHolds) {
  const PackFile pack = parse(pack_of({tensor("a", kDirectBlock), tensor("b", 2 * kDirectBlock, 3)}));
  EXPECT_EQ(pack.model(), kModel);
  ASSERT_NE(pack.find("b"), nullptr);
  EXPECT_EQ(pack.find("b")->experts, 3u);
  EXPECT_EQ(pack.find("b")->expert_bytes(), 4096u);
  EXPECT_EQ(pack.find("c"), nullptr);
}

TEST(PackTest, ImpossibleTensorsAreRefused) {
  const auto refused = [](PackedTensor t) { EXPECT_THROW(parse(pack_of({t})), FormatError); };
  refused(tensor("outside", 5 * kDirectBlock));
  refused(tensor("experts outside", kDirectBlock, 5));
  refused(tensor("in the head", 0));
  refused(tensor("not at a block", kDirectBlock + 64));
  PackedTensor t = tensor("empty", kDirectBlock);
  t.rows = 0;
  refused(t);
  t = tensor("huge", kDirectBlock);
  t.rows = t.cols = t.experts = 0xffffffff;
  refused(t);
  t = tensor("experts overlap", kDirectBlock, 2);
  t.expert_stride = 0;
  refused(t);
  t = tensor("half a quantisation block", kDirectBlock);
  t.type = DType::q4_k;
  refused(t);
  EXPECT_THROW(parse(pack_of({tensor("twice", kDirectBlock), tensor("twice", kDirectBlock)})), FormatError);
}

TEST(PackTest, WhatIsCutOffOrDamagedIsRefused) {
  const std::string good = pack_of({tensor("a", kDirectBlock), tensor("b", 2 * kDirectBlock, 3)});
  for (std::size_t size = 0; size < good.size(); size += 97) EXPECT_THROW(parse(good.substr(0, size)), FormatError);
  // Any byte of the table and the trailer; those of the tensors are what verify() is for.
  std::mt19937 random(1);
  for (std::size_t at = 5 * kDirectBlock; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    EXPECT_THROW(parse(bad), FormatError) << at;
  }
  EXPECT_THROW(parse(good).verify(), FormatError);  // no checksum of these was right
}

TEST(PackTest, TablesThatAreNoneAreRefused) {
  const std::string tail = pack_tail(kModel, {tensor("a", kDirectBlock)});
  const std::string table = tail.substr(0, tail.size() - 24);
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"\"rows\":16", "\"rows\":-1"},
                                                                                 {"\"rows\":16", "\"rows\":\"x\""},
                                                                                 {"\"version\":1", "\"version\":2"},
                                                                                 {"\"tensors\":[", "\"tensors\":[7,"},
                                                                                 {"\"name\":\"a\"", "\"name\":[]"},
                                                                                 {"\"type\":0", "\"type\":99"}}) {
    std::string other = table;
    ASSERT_NE(other.find(from), std::string::npos) << from;
    other.replace(other.find(from), from.size(), to);
    EXPECT_THROW(parse(pack_head() + std::string(kDirectBlock, 'x') + seal_pack_table(other)), FormatError) << to;
  }
}

}  // namespace
}  // namespace snug
