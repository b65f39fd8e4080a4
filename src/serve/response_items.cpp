#include "serve/response_items.hpp"

#include "serve/request_fields.hpp"

namespace snug {

namespace {

/// Text, or parts of which each has text.
std::string text_of(const Json& content) {
  if (content.is_null()) return {};
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) bad_field("input", "an item's content must be a string or a list of parts");
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object() || !field_of(part, "text").is_string())
      bad_field("input", "parts of an item's content must be text: this model reads nothing else");
    text += part["text"].get<std::string>();
  }
  return text;
}

void add_call(const Json& item, Json& messages) {
  Json call = {{"id", text_field(item, "call_id")},
               {"type", "function"},
               {"function", {{"name", text_field(item, "name")}, {"arguments", text_field(item, "arguments", "{}")}}}};
  // Calls belong to what the assistant said before them.
  if (messages.empty() || messages.back()["role"] != "assistant")
    messages.push_back({{"role", "assistant"}, {"content", ""}});
  messages.back()["tool_calls"].push_back(std::move(call));
}

}  // namespace

void add_input(const Json& input, Json& messages) {
  if (input.is_string()) {
    messages.push_back({{"role", "user"}, {"content", input}});
    return;
  }
  if (!input.is_array()) bad_field("input", "'input' must be a text or a list of items");
  for (const Json& item : input) {
    if (!item.is_object()) bad_field("input", "each item of 'input' must be an object");
    const std::string type = text_field(item, "type", "message");
    if (type == "message") {
      const std::string role = text_field(item, "role");
      if (role.empty()) bad_field("input", "a message of 'input' has no 'role'");
      messages.push_back({{"role", role}, {"content", text_of(field_of(item, "content"))}});
    } else if (type == "function_call") {
      add_call(item, messages);
    } else if (type == "function_call_output") {
      messages.push_back({{"role", "tool"},
                          {"tool_call_id", text_field(item, "call_id")},
                          {"content", text_of(field_of(item, "output"))}});
    } else if (type == "item_reference") {
      bad_field("input", "items are not kept by themselves: send them, or use 'previous_response_id'");
    }
  }
}

}  // namespace snug
