#include "serve/tool_calls.hpp"

#include <algorithm>

#include "serve/partial_mark.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::string_view kBegin = "<tool_call>", kEnd = "</tool_call>";

bool read_call(std::string_view text, ToolCall& call) {
  const Json json = parse_json(text);
  if (!json.is_object() || !field_of(json, "name").is_string()) return false;
  call.id = fmt::format("call_{:016x}", random_seed());
  call.name = json["name"].get<std::string>();
  call.arguments = field_of(json, "arguments").is_null() ? field_of(json, "parameters") : field_of(json, "arguments");
  if (call.arguments.is_null()) call.arguments = Json::object();
  return true;
}

}  // namespace

ToolCallReader::ToolCallReader(const Json& tools) {
  if (tools.is_array())
    for (const Json& tool : tools)
      if (const Json& function = field_of(tool, "function"); function.is_object())
        names_.push_back(text_field(function, "name"));
}

std::string ToolCallReader::push(std::string_view text, std::vector<ToolCall>& calls) {
  if (names_.empty()) return std::string(text);
  pending_ += text;
  if (const std::size_t first = pending_.find_first_not_of(" \n"); !begun_ && first != pending_.npos) {
    begun_ = true;
    bare_ = pending_[first] == '{';
  }
  if (!begun_ || bare_) return {};
  std::string out;
  while (true) {
    const std::size_t begin = pending_.find(kBegin);
    if (begin == pending_.npos) {
      const std::size_t keep = partial_mark(pending_, kBegin);
      out += pending_.substr(0, pending_.size() - keep);
      pending_.erase(0, pending_.size() - keep);
      return out;
    }
    const std::size_t end = pending_.find(kEnd, begin);
    out += pending_.substr(0, begin);
    if (end == pending_.npos) {
      pending_.erase(0, begin);
      return out;
    }
    ToolCall call;
    const std::size_t inside = begin + kBegin.size(), after = end + kEnd.size();
    if (read_call(std::string_view(pending_).substr(inside, end - inside), call))
      calls.push_back(std::move(call));
    else
      out += pending_.substr(begin, after - begin);  // no call: it stays text
    pending_.erase(0, after);
  }
}

std::string ToolCallReader::finish(std::vector<ToolCall>& calls) {
  ToolCall call;
  if (bare_ && read_call(pending_, call) && std::find(names_.begin(), names_.end(), call.name) != names_.end()) {
    calls.push_back(std::move(call));
    return {};
  }
  return std::exchange(pending_, {});
}

std::string tool_grammar(const Json& tools, const std::string& name) {
  std::string choices;
  for (const Json& tool : tools) {
    const Json& function = field_of(tool, "function");
    if (!function.is_object() || !field_of(function, "name").is_string()) continue;
    if (!name.empty() && function["name"] != name) continue;
    const Json& parameters = field_of(function, "parameters");
    const Json schema = {{"type", "object"},
                         {"properties",
                          {{"name", {{"const", function["name"]}}},
                           {"arguments", parameters.is_object() ? parameters : Json{{"type", "object"}}}}},
                         {"required", Json::array({"name", "arguments"})},
                         {"additionalProperties", false}};
    choices += fmt::format("{}%json {}", choices.empty() ? "" : " | ", schema_grammar(schema));
  }
  if (choices.empty())
    throw ApiError(400, "invalid_request_error", "'tool_choice' asks for a tool that is not among 'tools'",
                   "tool_choice");
  return fmt::format("start: \"<tool_call>\\n\" call \"\\n</tool_call>\"\ncall: {}\n", choices);
}

}  // namespace snug
