#include "text/tokenizer.hpp"

#include <gtest/gtest.h>

#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

TEST(TokenizerTest, MergesByRank) {
  // The tokenizer refers to the file's tokens: keep it alive.
  GgufWriter w;
  add_tiny_tokenizer(w, 262);
  const GgufFile file = parse(w.bytes());
  const auto t = Tokenizer::from_gguf(file);
  EXPECT_EQ(t->encode("hello"), (std::vector<TokenId>{258, 'o'}));
  EXPECT_EQ(t->encode("<end>").size(), 5u);
  EXPECT_EQ(t->encode("<end>", {.add_special = true, .parse_special = true}), std::vector<TokenId>{259});
  EXPECT_TRUE(t->is_end(259));
  EXPECT_EQ(t->piece(259), "");
  EXPECT_EQ(t->piece(259, true), "<end>");
  EXPECT_EQ(t->piece(-1), "");
  EXPECT_EQ(t->piece(1 << 20), "");
}

TEST(TokenizerTest, AnyBytesRoundTrip) {
  GgufWriter w;
  add_tiny_tokenizer(w, 262);
  const GgufFile file = parse(w.bytes());
  const auto t = Tokenizer::from_gguf(file);
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) all += static_cast<char>(random());
  all += "\xF0\x9F\x91";  // half an emoji
  EXPECT_EQ(t->decode(t->encode(all)), all);
}

TEST(StreamDecoderTest, NeverHalfACharacter) {
  const std::string text = "aä€👍z";
  StreamDecoder decoder;
  std::string out;
  for (const char c : text) {
    const std::string piece = decoder.push(std::string(1, c));
    for (std::size_t i = 0; i < piece.size();) {
      const auto lead = static_cast<unsigned char>(piece[i]);
      const std::size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      EXPECT_LE(i + n, piece.size());
      i += n;
    }
    out += piece;
  }
  EXPECT_EQ(out + decoder.finish(), text);
  StreamDecoder broken;
  EXPECT_EQ(broken.push("\xFFx") + broken.finish(), "\xFFx");
}

TEST(TokenizerTest, BadMetadataIsRefused) {
  const auto refused = [](auto&& change) {
    GgufWriter w;
    change(w);
    const GgufFile file = parse(w.bytes());
    EXPECT_THROW(Tokenizer::from_gguf(file), FormatError);
  };
  refused([](GgufWriter&) {});
  refused([](GgufWriter& w) {
    w.add_string("tokenizer.ggml.model", "unheard-of"), w.add_strings("tokenizer.ggml.tokens", {"a"});
  });
  refused([](GgufWriter& w) { w.add_string("tokenizer.ggml.model", "gpt2"); });
  refused([](GgufWriter& w) {
    w.add_string("tokenizer.ggml.model", "gpt2"), w.add_string("tokenizer.ggml.pre", "unheard-of"),
        w.add_strings("tokenizer.ggml.tokens", byte_tokens());
    w.add_strings("tokenizer.ggml.merges", {});
  });
  refused([](GgufWriter& w) { w.add_string("tokenizer.ggml.model", "llama"), w.add_u32("tokenizer.ggml.tokens", 3); });
}

}  // namespace
}  // namespace snug
