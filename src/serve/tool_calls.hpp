#pragma once
/// Tool calls in what a model writes: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Hermes, Qwen and
/// others; "parameters" is taken too), or nothing but such an object with the name of a tool (Llama 3, small models).

#include <string>
#include <string_view>
#include <vector>

#include "serve/api.hpp"

namespace snug {

struct ToolCall {
  std::string id, name;
  Json arguments;
};

/// Takes text as it comes. What may become a call is held back until it is clear.
class ToolCallReader {
public:
  /// `tools`: as templates know them; null: everything is text.
  explicit ToolCallReader(const Json& tools);

  /// Text that may be given out; whole calls are added to `calls`.
  std::string push(std::string_view text, std::vector<ToolCall>& calls);
  /// What is left at the end.
  std::string finish(std::vector<ToolCall>& calls);

private:
  std::vector<std::string> names_;
  bool begun_ = false, bare_ = false;  ///< something was written; it may be nothing but a call
  std::string pending_;
};

/// A grammar (Grammars, "lark") of one call of one of these tools, or of the one that is named. Throws ApiError when
/// there is no such tool.
std::string tool_grammar(const Json& tools, const std::string& name);

}  // namespace snug
