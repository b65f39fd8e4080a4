// Tool calls are found however the text is cut.

#include "serve/tool_calls.hpp"

#include <gtest/gtest.h>

namespace snug {
namespace {

struct Found {
  std::string text;
  std::vector<ToolCall> calls;
};

Found read(const std::string& text, std::size_t piece, bool on = true) {
  Found found;
  ToolCallReader reader(on ? Json::parse(R"([{"function": {"name": "a"}}, {"function": {"name": "b"}}])") : Json());
  for (std::size_t at = 0; at < text.size(); at += piece)
    found.text += reader.push(text.substr(at, piece), found.calls);
  found.text += reader.finish(found.calls);
  return found;
}

TEST(ToolCallsTest, AreFoundHoweverTheTextIsCut) {
  const std::string text =
      "Let me see. <tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call> and "
      "<tool_call>{\"name\": \"b\", \"parameters\": {}}</tool_call>";
  for (const std::size_t piece : {1u, 2u, 5u, 11u, 1000u}) {
    const Found found = read(text, piece);
    EXPECT_EQ(found.text, "Let me see.  and ");
    ASSERT_EQ(found.calls.size(), 2u);
    EXPECT_EQ(found.calls[0].name, "a");
    EXPECT_EQ(found.calls[0].arguments.dump(), "{\"x\":1}");
    EXPECT_EQ(found.calls[1].name, "b");
    EXPECT_NE(found.calls[0].id, found.calls[1].id);
  }
}

TEST(ToolCallsTest, WhatIsNoCallStaysText) {
  for (const std::string text : {"a < b <tool", "<tool_call>never ended {", "<tool_call>[1, 2]</tool_call>",
                                 "<tool_call>{\"name\": 1}</tool_call>x", "<tool_call></tool_call>", "<<tool_call>"})
    for (const std::size_t piece : {1u, 3u, 100u}) {
      const Found found = read(text, piece);
      EXPECT_EQ(found.text, text);
      EXPECT_TRUE(found.calls.empty());
    }
  EXPECT_EQ(read("<tool_call>{\"name\":\"a\"}</tool_call>", 4, false).text, "<tool_call>{\"name\":\"a\"}</tool_call>");
}

TEST(ToolCallsTest, NothingButACallNeedsNoTags) {
  for (const std::size_t piece : {1u, 7u, 100u}) {
    const Found found = read("\n {\"name\": \"b\", \"arguments\": {\"x\": [1]}}\n", piece);
    EXPECT_EQ(found.text, "");
    ASSERT_EQ(found.calls.size(), 1u);
    EXPECT_EQ(found.calls[0].arguments.dump(), "{\"x\":[1]}");
    EXPECT_EQ(read("{\"name\": \"c\"}", piece).text, "{\"name\": \"c\"}");
    EXPECT_EQ(read("{\"name\": \"b\"} and so on", piece).text, "{\"name\": \"b\"} and so on");
  }
}

TEST(ToolCallsTest, AGrammarHasTheToolsThatAreWanted) {
  const Json tools = Json::parse(R"([{"function": {"name": "a"}}, {"function": {"name": "b"}}])");
  EXPECT_NE(tool_grammar(tools, "").find(" | "), std::string::npos);
  EXPECT_EQ(tool_grammar(tools, "b").find("\"a\""), std::string::npos);
  EXPECT_THROW(tool_grammar(tools, "c"), ApiError);
  EXPECT_THROW(tool_grammar(Json(), ""), ApiError);
}

}  // namespace
}  // namespace snug
