#include "serve/anthropic_api.hpp"

#include "serve/answer.hpp"
#include "serve/answer_reader.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostStops = 64;

/// A message's content as templates know it: text, what the assistant called, what came of it.
void add_message(const Json& message, Json& out) {
  const Json& content = field_of(message, "content");
  const std::string role = text_field(message, "role");
  if (!content.is_array()) {
    out.push_back({{"role", role}, {"content", content_text(content)}});
    return;
  }
  Json texts = Json::array(), calls = Json::array();
  for (const Json& part : content) {
    const std::string type = part.is_object() ? text_field(part, "type") : std::string();
    if (type == "tool_use")
      calls.push_back({{"id", field_of(part, "id")},
                       {"type", "function"},
                       {"function", {{"name", field_of(part, "name")}, {"arguments", field_of(part, "input")}}}});
    else if (type == "tool_result")
      out.push_back({{"role", "tool"},
                     {"tool_call_id", field_of(part, "tool_use_id")},
                     {"content", content_text(field_of(part, "content"))}});
    else if (type != "thinking" && type != "redacted_thinking")
      texts.push_back(part);
  }
  if (texts.empty() && calls.empty()) return;
  Json said = {{"role", role}, {"content", content_text(texts)}};
  if (!calls.empty()) said["tool_calls"] = std::move(calls);
  out.push_back(std::move(said));
}

/// Tools in the shape that templates know; null: none.
Json tools_of(const Json& body) {
  Json tools = Json::array();
  const Json& choice = field_of(body, "tool_choice");
  if (choice.is_object() && field_of(choice, "type") == "none") return nullptr;
  if (const Json& all = field_of(body, "tools"); all.is_array())
    for (const Json& tool : all)
      if (tool.is_object() && tool.contains("input_schema"))
        tools.push_back({{"type", "function"},
                         {"function",
                          {{"name", field_of(tool, "name")},
                           {"description", field_of(tool, "description")},
                           {"parameters", tool["input_schema"]}}}});
  return tools.empty() ? Json() : tools;
}

std::vector<TokenId> prompt_of(const ServedModel& m, const Json& body) {
  Json messages = Json::array();
  if (const Json& system = field_of(body, "system"); !system.is_null())
    messages.push_back({{"role", "system"}, {"content", content_text(system)}});
  const Json& given = field_of(body, "messages");
  if (!given.is_array() || given.empty()) bad_field("messages", "'messages' must be a list of at least one message");
  for (const Json& message : given) {
    if (!message.is_object()) bad_field("messages", "each message must be an object with a 'role'");
    add_message(message, messages);
  }
  std::optional<bool> thinking;
  if (const Json& wanted = field_of(body, "thinking"); wanted.is_object())
    thinking = field_of(wanted, "type") != "disabled";
  return m.chat_prompt(checked_messages(messages), tools_of(body), thinking);
}

Json usage_json(const ServeUsage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"output_tokens", usage.generated_tokens}};
}

Json reason_json(const ServeEvent& event) {
  switch (*event.reason) {
    case StopReason::max_tokens:
    case StopReason::context_full:
      return "max_tokens";
    case StopReason::stop_string:
      return "stop_sequence";
    default:
      return "end_turn";
  }
}

/// Blocks of thoughts, of text and of tool calls, whole or as a stream.
class MessageAnswer final : public Answer {
public:
  MessageAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, ServeRequest request, bool stream,
                AnswerReader reader)
      : Answer(model, std::move(reply), std::move(request)), stream_(stream), reader_(std::move(reader)) {}

private:
  Json message(const ServeEvent* end) const {
    const ServeUsage usage = end ? end->usage : ServeUsage{request_.prompt.size(), 0, 0};
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", model_.options.model},
            {"content", blocks_},
            {"stop_reason", end ? reason(*end) : Json()},
            {"stop_sequence", end && !end->stop.empty() ? Json(end->stop) : Json()},
            {"usage", usage_json(usage)}};
  }
  Json reason(const ServeEvent& end) const { return called_ ? Json("tool_use") : reason_json(end); }
  void say(Json event) {
    reply_->write(fmt::format("event: {}\ndata: {}\n\n", event["type"].get<std::string>(), dump(event)));
  }
  HttpResponse refusal(const ApiError& error) const override { return anthropic_error(error); }
  void begin() override {
    if (!stream_) return;
    reply_->begin("text/event-stream");
    say({{"type", "message_start"}, {"message", message(nullptr)}});
    say({{"type", "ping"}});
  }
  void open(Json block) {
    if (stream_) say({{"type", "content_block_start"}, {"index", blocks_.size()}, {"content_block", block}});
    blocks_.push_back(std::move(block));
    open_ = true;
  }
  void close() {
    if (std::exchange(open_, false) && stream_) say({{"type", "content_block_stop"}, {"index", blocks_.size() - 1}});
  }
  void delta(Json what) {
    if (stream_) say({{"type", "content_block_delta"}, {"index", blocks_.size() - 1}, {"delta", std::move(what)}});
  }
  /// Goes on with a block of this type, or begins one.
  void go_on(Json block) {
    if (open_ && blocks_.back()["type"] == block["type"]) return;
    close();
    open(std::move(block));
  }
  void add_thinking(const std::string& text) {
    if (text.empty()) return;
    go_on({{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
    Json& all = blocks_.back()["thinking"];
    all = all.get<std::string>() + text;
    delta({{"type", "thinking_delta"}, {"thinking", text}});
  }
  void add_text(const std::string& text) {
    if (text.empty() || (!open_ && called_ && text.find_first_not_of(" \n") == text.npos)) return;
    go_on({{"type", "text"}, {"text", ""}});
    Json& all = blocks_.back()["text"];
    all = all.get<std::string>() + text;
    delta({{"type", "text_delta"}, {"text", text}});
  }
  void add_call(const ToolCall& call) {
    close();
    called_ = true;
    open({{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", Json::object()}});
    blocks_.back()["input"] = call.arguments;
    delta({{"type", "input_json_delta"}, {"partial_json", dump(call.arguments)}});
    close();
  }
  void take(std::size_t, const ServeEvent& event) override {
    if (!event.error.empty()) {
      const HttpResponse error = anthropic_error({529, "overloaded_error", event.error});
      if (!stream_) return reply_->send(error);
      reply_->write(fmt::format("event: error\ndata: {}\n\n", error.body));
      return reply_->end();
    }
    const AnswerPiece piece = reader_.push(event);
    add_thinking(piece.thinking);
    add_text(piece.text);
    for (const ToolCall& call : piece.calls) add_call(call);
    if (!event.last()) return;
    if (blocks_.empty()) open({{"type", "text"}, {"text", ""}});
    close();
    if (!stream_) return reply_->send({.body = dump(message(&event))});
    say({{"type", "message_delta"},
         {"delta", {{"stop_reason", reason(event)}, {"stop_sequence", event.stop.empty() ? Json() : Json(event.stop)}}},
         {"usage", usage_json(event.usage)}});
    say({{"type", "message_stop"}});
    reply_->end();
  }

  bool stream_, open_ = false, called_ = false;
  AnswerReader reader_;
  std::string id_ = fmt::format("msg_{:016x}", random_seed());
  Json blocks_ = Json::array();
};

}  // namespace

HttpResponse anthropic_error(const ApiError& error) {
  std::string type = error.type;
  if (error.status == 404) type = "not_found_error";
  if (error.status == 429) type = "rate_limit_error";
  if (error.status >= 500) type = error.status == 529 ? "overloaded_error" : "api_error";
  return {error.status, "application/json",
          dump({{"type", "error"}, {"error", {{"type", type}, {"message", error.what()}}}})};
}

void anthropic_messages(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  ServeRequest r = sampled_request(m, request, body);
  r.stop = texts_field(body, "stop_sequences", kMostStops);
  const auto most = count_field(body, "max_tokens", 1, kAnyTokens);
  if (!most) bad_field("max_tokens", "'max_tokens' is missing");
  r.max_tokens = *most;
  r.prompt = prompt_of(m, body);
  const Json tools = tools_of(body);
  std::string grammar;
  std::size_t most_calls = ~std::size_t{0};
  if (const Json& choice = field_of(body, "tool_choice"); choice.is_object()) {
    const std::string type = text_field(choice, "type");
    if (type == "any" || type == "tool") grammar = tool_grammar(tools, text_field(choice, "name"));
    if (flag_field(choice, "disable_parallel_tool_use")) most_calls = 1;
  }
  const bool begun = grammar.empty() && begins_in_thought(m.model.tokenizer(), r.prompt);
  const auto answer = std::make_shared<MessageAnswer>(m, std::move(reply), std::move(r), flag_field(body, "stream"),
                                                      AnswerReader(tools, begun, most_calls));
  if (!grammar.empty()) answer->follow("lark", std::move(grammar));
  answer->start();
}

void anthropic_count_tokens(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  reply->send({.body = dump({{"input_tokens", prompt_of(m, parse_body(request)).size()}})});
}

}  // namespace snug
