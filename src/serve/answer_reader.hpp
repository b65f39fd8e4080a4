#pragma once
/// What a model writes, taken apart: thoughts, text, tool calls.

#include "serve/thinking.hpp"
#include "serve/tool_calls.hpp"

namespace snug {

/// What has been added since the last time.
struct AnswerPiece {
  std::string thinking, text;
  std::vector<ToolCall> calls;
};

class AnswerReader {
public:
  /// `tools`: as templates know them; null: none. `begun`: the prompt ends in a thought. `most_calls`: further calls
  /// are dropped (parallel_tool_calls).
  explicit AnswerReader(const Json& tools, bool begun = false, std::size_t most_calls = ~std::size_t{0})
      : thinking_(begun), tools_(tools), most_calls_(most_calls) {}

  AnswerPiece push(const ServeEvent& event) {
    AnswerPiece piece;
    std::string said = thinking_.push(event.text, piece.thinking);
    if (event.last()) said += thinking_.finish(piece.thinking);
    piece.text = tools_.push(said, piece.calls);
    if (event.last()) piece.text += tools_.finish(piece.calls);
    if (thinking_.thinks() || !piece.thinking.empty()) thinking_tokens_ += event.tokens.size();
    if (piece.calls.size() > most_calls_) piece.calls.resize(most_calls_);
    most_calls_ -= piece.calls.size();
    return piece;
  }
  /// Tokens of events in which it was thinking.
  std::size_t thinking_tokens() const { return thinking_tokens_; }

private:
  ThinkingReader thinking_;
  ToolCallReader tools_;
  std::size_t most_calls_, thinking_tokens_ = 0;
};

}  // namespace snug
