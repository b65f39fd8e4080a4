// Tokens for filling in the middle are found in metadata, or by what they are called.

#include "serve/infill.hpp"

#include <gtest/gtest.h>

#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

/// A file with a tokenizer that has `special` tokens after 256 bytes, and further numbers.
std::optional<InfillTokens> find(const std::vector<std::string>& special,
                                 const std::vector<std::pair<std::string, std::uint32_t>>& metadata = {}) {
  GgufWriter w;
  std::vector<std::string> tokens = byte_tokens();
  tokens.insert(tokens.end(), {"he", "ll"});
  std::vector<std::int32_t> kinds(tokens.size(), 1);
  for (const std::string& token : special) tokens.push_back(token), kinds.push_back(4);
  w.add_string("general.architecture", "llama");
  w.add_string("tokenizer.ggml.model", "gpt2");
  w.add_string("tokenizer.ggml.pre", "gpt-2");
  w.add_strings("tokenizer.ggml.tokens", tokens);
  w.add_numbers("tokenizer.ggml.token_type", 5, kinds);
  w.add_strings("tokenizer.ggml.merges", {"h e", "l l"});
  for (const auto& [key, value] : metadata) w.add_u32("tokenizer.ggml." + key, value);
  const GgufFile file = parse(w.bytes());
  const auto tokenizer = Tokenizer::from_gguf(file);
  for (const std::string& token : special)
    EXPECT_EQ(tokenizer->is_end(tokenizer->encode(token, {false, true}).at(0)),
              token == "<|file_sep|>" || token == "<|fim_pad|>");
  return find_infill_tokens(file, *tokenizer);
}

TEST(InfillTest, MetadataComesFirst) {
  for (const std::string key : {"fim_pre", "prefix"}) {
    const std::string suffix = key == "prefix" ? "suffix" : "fim_suf", middle = key == "prefix" ? "middle" : "fim_mid";
    const auto t =
        find({"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
             {{key + "_token_id", 5}, {suffix + "_token_id", 6}, {middle + "_token_id", 7}, {"fim_sep_token_id", 8}});
    ASSERT_TRUE(t);
    EXPECT_EQ((std::vector{t->prefix, t->suffix, t->middle, t->repository, t->file}), (std::vector{5, 6, 7, -1, 8}));
  }
}

TEST(InfillTest, ElseWhatTheyAreCalled) {
  const auto t = find({"<|fim_middle|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|file_sep|>", "<|fim_pad|>"});
  ASSERT_TRUE(t);
  EXPECT_EQ((std::vector{t->prefix, t->suffix, t->middle, t->repository, t->file}),
            (std::vector{259, 260, 258, -1, 261}));
  EXPECT_TRUE(find({"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}));
}

TEST(InfillTest, WithoutThemThereAreNone) {
  EXPECT_FALSE(find({}));
  EXPECT_FALSE(find({"<|fim_prefix|>", "<|fim_suffix|>"}));
  EXPECT_FALSE(find({}, {{"fim_pre_token_id", 5}, {"fim_suf_token_id", 6}, {"fim_mid_token_id", 100000}}));
}

}  // namespace
}  // namespace snug
