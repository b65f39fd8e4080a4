#include "serve/openai_shapes.hpp"

#include "serve/request_fields.hpp"

namespace snug {

WantedGrammar openai_grammar(const Json& format, const char* field) {
  if (format.is_null()) return {};
  if (!format.is_object()) bad_field(field, fmt::format("'{}' must be an object", field));
  const std::string type = text_field(format, "type", "text");
  if (type == "text") return {};
  if (type == "json_object") return {"json_schema", schema_grammar({{"type", "object"}})};
  if (type == "regex") return {"regex", text_field(format, "pattern")};
  if (type == "grammar") return {"lark", text_field(format, "grammar")};
  if (type != "json_schema") bad_field(field, "its type must be text, json_object, json_schema, regex or grammar");
  const Json& wrapped = field_of(format, "json_schema");
  const Json& schema = wrapped.is_object() ? field_of(wrapped, "schema") : field_of(format, "schema");
  if (!schema.is_object() && !schema.is_boolean()) bad_field(field, "'json_schema' has no 'schema'");
  return {"json_schema", schema_grammar(schema)};
}

Json openai_tools(const Json& tools) {
  if (!tools.is_array()) return nullptr;
  Json known = Json::array();
  for (const Json& tool : tools) {
    if (!tool.is_object() || field_of(tool, "type") != "function") continue;
    if (field_of(tool, "function").is_object()) {
      known.push_back(tool);
    } else if (field_of(tool, "name").is_string()) {
      Json function = {{"name", tool["name"]}};
      for (const char* name : {"description", "parameters"})
        if (const Json& value = field_of(tool, name); !value.is_null()) function[name] = value;
      known.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
  }
  return known.empty() ? Json() : known;
}

Json openai_usage(const ServeUsage& usage, std::size_t thinking) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.generated_tokens},
          {"total_tokens", usage.prompt_tokens + usage.generated_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", thinking}}}};
}

}  // namespace snug
