#pragma once
/// What OpenAI's APIs have in common: formats, tools, usage.

#include "serve/api.hpp"

namespace snug {

/// Kind and text for Grammars.
struct WantedGrammar {
  std::string kind, text;
  explicit operator bool() const { return !kind.empty(); }
};

/// Of a format of type text, json_object, json_schema, regex or grammar; `field` has it. Throws ApiError.
WantedGrammar openai_grammar(const Json& format, const char* field);
/// Function tools as templates know them, of chat's shape or of that of responses; others are left out. Null: none.
Json openai_tools(const Json& tools);
/// Of chat and text; `thinking`: tokens of thoughts.
Json openai_usage(const ServeUsage& usage, std::size_t thinking);

}  // namespace snug
