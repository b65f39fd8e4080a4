// Thoughts are told from what is said, however the text is cut.

#include "serve/thinking.hpp"

#include <gtest/gtest.h>

#include "serve/answer_reader.hpp"

namespace snug {
namespace {

struct Said {
  std::string thinking, text;
  bool operator==(const Said&) const = default;
};

Said read(const std::string& text, std::size_t piece, bool begun = false) {
  Said said;
  ThinkingReader reader(begun);
  for (std::size_t at = 0; at < text.size(); at += piece)
    said.text += reader.push(text.substr(at, piece), said.thinking);
  said.text += reader.finish(said.thinking);
  return said;
}

TEST(ThinkingTest, ThoughtsAreFoundHoweverTheTextIsCut) {
  for (const std::size_t piece : {1u, 2u, 3u, 7u, 1000u}) {
    EXPECT_EQ(read("<think>\nTwo and two\n\nis four.\n</think>\n\nFour. ", piece),
              (Said{"Two and two\n\nis four.", "Four. "}));
    EXPECT_EQ(read("\n <think></think>Yes", piece), (Said{"", "Yes"}));
    EXPECT_EQ(read("<think>a < b </thin k></think>x</think>", piece), (Said{"a < b </thin k>", "x</think>"}));
    EXPECT_EQ(read("<think>never ended </thi", piece), (Said{"never ended </thi", ""}));
  }
}

TEST(ThinkingTest, APromptMayHaveBegunTheThought) {
  for (const std::size_t piece : {1u, 4u, 1000u}) {
    EXPECT_EQ(read("\nHm.</think>\nYes", piece, true), (Said{"Hm.", "Yes"}));
    EXPECT_EQ(read("<think>Hm.</think>Yes", piece, true), (Said{"Hm.", "Yes"}));
    EXPECT_EQ(read("Hm", piece, true), (Said{"Hm", ""}));
  }
}

TEST(ThinkingTest, WhatIsNoThoughtStaysText) {
  for (const std::string text : {"a <think>b</think>", "<thin", "<thinking>x</thinking>", " \n", "<", "x", "  <b>"})
    for (const std::size_t piece : {1u, 3u, 1000u}) EXPECT_EQ(read(text, piece), (Said{"", text}));
}

TEST(ThinkingTest, CallsComeAfterThoughtsAndMayBeLimited) {
  const Json tools = Json::parse(R"([{"function": {"name": "a"}}])");
  const std::string call = R"(<tool_call>{"name": "a"}</tool_call>)";
  for (const std::size_t most : {1u, 5u}) {
    AnswerReader reader(tools, false, most);
    ServeEvent event;
    event.text = "<think>" + call + "</think>" + call + call;
    event.tokens.resize(3);
    const AnswerPiece piece = reader.push(event);
    EXPECT_EQ(piece.thinking, call);
    EXPECT_EQ(piece.calls.size(), std::min<std::size_t>(most, 2));
    EXPECT_EQ(reader.thinking_tokens(), 3u);
  }
}

}  // namespace
}  // namespace snug
