#include "serve/responses_api.hpp"

#include "serve/answer.hpp"
#include "serve/answer_reader.hpp"
#include "serve/openai_api.hpp"
#include "serve/openai_shapes.hpp"
#include "serve/request_fields.hpp"
#include "serve/response_items.hpp"
#include "serve/response_store.hpp"

namespace snug {

namespace {

/// What a response says about its request.
struct ResponseFields {
  Json head;      ///< fields that are given back as they came
  Json messages;  ///< of the conversation so far, without instructions; null: nothing is kept
  std::string owner;
  bool stream = false;
};

Json usage_json(const ServeUsage& usage, std::size_t thinking) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
          {"output_tokens", usage.generated_tokens},
          {"output_tokens_details", {{"reasoning_tokens", thinking}}},
          {"total_tokens", usage.prompt_tokens + usage.generated_tokens}};
}

/// Items: what it thinks, says and calls. The last one of output_ may still be growing.
class ResponseAnswer final : public Answer {
public:
  ResponseAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, ServeRequest request, ResponseFields fields,
                 AnswerReader reader)
      : Answer(model, std::move(reply), std::move(request)), fields_(std::move(fields)), reader_(std::move(reader)) {}

private:
  Json response(const char* status) const {
    Json json = {
        {"id", id_},        {"object", "response"},          {"created_at", created_},        {"status", status},
        {"error", nullptr}, {"incomplete_details", nullptr}, {"model", model_.options.model}, {"output", output_}};
    json.update(fields_.head);
    json["usage"] = nullptr;
    return json;
  }
  void say(const char* type, Json event) {
    if (!fields_.stream) return;
    Json json = {{"type", type}, {"sequence_number", sequence_++}};
    json.update(event);
    reply_->write(fmt::format("event: {}\ndata: {}\n\n", type, dump(json)));
  }
  /// An event of the last item, or of its only part.
  void say_of_item(const char* type, Json event) {
    Json json = {{"item_id", output_.back()["id"]}, {"output_index", output_.size() - 1}};
    json.update(event);
    say(type, std::move(json));
  }
  void say_of_part(const char* type, Json event) {
    Json json = {{"content_index", 0}};
    json.update(event);
    say_of_item(type, std::move(json));
  }
  void begin() override {
    if (!fields_.stream) return;
    reply_->begin("text/event-stream");
    say("response.created", {{"response", response("in_progress")}});
    say("response.in_progress", {{"response", response("in_progress")}});
  }

  void open(Json item) {
    item["id"] = fmt::format("{}_{:016x}",
                             item["type"] == "message"     ? "msg"
                             : item["type"] == "reasoning" ? "rs"
                                                           : "fc",
                             random_seed());
    item["status"] = "in_progress";
    output_.push_back(std::move(item));
    open_ = true;
    say("response.output_item.added", {{"output_index", output_.size() - 1}, {"item", output_.back()}});
  }
  void add_part(const char* type) {
    Json part = {{"type", type}, {"text", ""}};
    if (part["type"] == "output_text") part["annotations"] = Json::array(), part["logprobs"] = Json::array();
    say_of_part("response.content_part.added", {{"part", part}});
    output_.back()["content"].push_back(std::move(part));
  }
  bool at(const char* type) const { return open_ && output_.back()["type"] == type; }
  void add_text(const std::string& text) {
    const bool space = text.find_first_not_of(" \n") == text.npos;
    if (text.empty() || (space && called_ && !at("message"))) return;
    if (!at("message")) {
      close("completed");
      open({{"type", "message"}, {"role", "assistant"}, {"content", Json::array()}});
      add_part("output_text");
    }
    append(text);
    say_of_part("response.output_text.delta", {{"delta", text}, {"logprobs", Json::array()}});
  }
  void add_thinking(const std::string& text) {
    if (text.empty()) return;
    if (!at("reasoning")) {
      close("completed");
      open({{"type", "reasoning"}, {"summary", Json::array()}, {"content", Json::array()}});
      add_part("reasoning_text");
    }
    append(text);
    say_of_part("response.reasoning_text.delta", {{"delta", text}});
  }
  void append(const std::string& text) {
    auto& all = output_.back()["content"][0]["text"].get_ref<std::string&>();
    all += text;
  }
  void add_call(const ToolCall& call) {
    close("completed");
    called_ = true;
    open({{"type", "function_call"}, {"call_id", call.id}, {"name", call.name}, {"arguments", ""}});
    const std::string arguments = dump(call.arguments);
    say_of_item("response.function_call_arguments.delta", {{"delta", arguments}});
    output_.back()["arguments"] = arguments;
    close("completed");
  }
  void close(const char* status) {
    if (!std::exchange(open_, false)) return;
    Json& item = output_.back();
    item["status"] = status;
    if (item["type"] == "function_call") {
      say_of_item("response.function_call_arguments.done", {{"name", item["name"]}, {"arguments", item["arguments"]}});
    } else {
      const Json part = item["content"][0];
      if (item["type"] == "message")
        say_of_part("response.output_text.done", {{"text", part["text"]}, {"logprobs", Json::array()}});
      else
        say_of_part("response.reasoning_text.done", {{"text", part["text"]}});
      say_of_part("response.content_part.done", {{"part", part}});
    }
    say("response.output_item.done", {{"output_index", output_.size() - 1}, {"item", item}});
  }

  void take(std::size_t, const ServeEvent& event) override {
    if (!event.error.empty()) return fail_with(event.error);
    const AnswerPiece piece = reader_.push(event);
    add_thinking(piece.thinking);
    add_text(piece.text);
    for (const ToolCall& call : piece.calls) add_call(call);
    if (!event.last()) return;
    const bool cut = event.reason == StopReason::max_tokens || event.reason == StopReason::context_full;
    if (output_.empty()) {
      open({{"type", "message"}, {"role", "assistant"}, {"content", Json::array()}});
      add_part("output_text");
    }
    close(cut ? "incomplete" : "completed");
    Json json = response(cut ? "incomplete" : "completed");
    if (cut) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json["usage"] = usage_json(event.usage, reader_.thinking_tokens());
    if (!fields_.messages.is_null()) keep();
    if (!fields_.stream) return reply_->send({.body = dump(json)});
    say(cut ? "response.incomplete" : "response.completed", {{"response", std::move(json)}});
    reply_->end();
  }
  void fail_with(const std::string& why) {
    if (!fields_.stream) return reply_->send(openai_error({503, "server_error", why}));
    Json json = response("failed");
    json["error"] = {{"code", "server_error"}, {"message", why}};
    say("response.failed", {{"response", std::move(json)}});
    reply_->end();
  }
  void keep() {
    add_input(output_, fields_.messages);
    model_.options.responses->put(id_, fields_.owner, dump(fields_.messages));
  }

  ResponseFields fields_;
  AnswerReader reader_;
  std::string id_ = fmt::format("resp_{:016x}", random_seed());
  std::int64_t created_ = seconds_now();
  std::size_t sequence_ = 0;
  Json output_ = Json::array();
  bool open_ = false, called_ = false;
};

/// Whose responses these are: those of a key.
std::string owner_of(const HttpRequest& request) {
  return std::string(request.header("authorization").empty() ? request.header("x-api-key")
                                                             : request.header("authorization"));
}

/// The messages before this request's.
Json previous_messages(const ServedModel& m, const Json& body, const std::string& owner) {
  const std::string id = text_field(body, "previous_response_id");
  if (id.empty()) return Json::array();
  const auto kept = m.options.responses->get(id, owner);
  if (!kept)
    throw ApiError(400, "invalid_request_error",
                   fmt::format("'previous_response_id': {} is not kept here (only the last responses of this run are, "
                               "and none with \"store\": false): send the whole conversation as 'input'",
                               id),
                   "previous_response_id", "previous_response_not_found");
  Json messages = Json::parse(*kept, nullptr, false);
  if (!messages.is_array())  // others may have written it
    throw ApiError(400, "invalid_request_error",
                   fmt::format("'previous_response_id': what is kept of {} is damaged", id), "previous_response_id",
                   "previous_response_not_found");
  return messages;
}

/// Fields that a response has from its request.
Json head_of(const ServeRequest& r, const Json& body, const Json& grammar_format) {
  const auto or_default = [&body](const char* name, Json otherwise) {
    const Json& value = field_of(body, name);
    return value.is_null() ? otherwise : value;
  };
  Json tools = Json::array();
  if (const Json& given = field_of(body, "tools"); given.is_array())
    for (const Json& tool : given)
      if (tool.is_object() && field_of(tool, "type") == "function") tools.push_back(tool);
  const Json most = field_of(body, "max_output_tokens");
  return {{"instructions", or_default("instructions", nullptr)},
          {"max_output_tokens", most},
          {"metadata", or_default("metadata", Json::object())},
          {"parallel_tool_calls", or_default("parallel_tool_calls", true)},
          {"previous_response_id", or_default("previous_response_id", nullptr)},
          {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
          {"store", or_default("store", true)},
          {"temperature", or_default("temperature", r.sampler.temperature)},
          {"text", {{"format", grammar_format.is_null() ? Json{{"type", "text"}} : grammar_format}}},
          {"tool_choice", or_default("tool_choice", "auto")},
          {"tools", std::move(tools)},
          {"top_p", or_default("top_p", r.sampler.top_p)},
          {"truncation", "disabled"}};
}

void refuse_what_is_not_there(const Json& body) {
  if (flag_field(body, "background")) bad_field("background", "'background' is not possible: wait for the answer");
  if (!field_of(body, "conversation").is_null())
    bad_field("conversation", "conversations are not kept: use 'previous_response_id', or send all of 'input'");
  if (!field_of(body, "prompt").is_null()) bad_field("prompt", "prompts are not kept here: send 'input'");
}

}  // namespace

void openai_responses(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  refuse_what_is_not_there(body);
  ServeRequest r = sampled_request(m, request, body);
  r.max_tokens = count_field(body, "max_output_tokens", 1, kAnyTokens).value_or(kAnyTokens);
  r.ignore_end = flag_field(body, "ignore_eos");
  ResponseFields fields;
  fields.stream = flag_field(body, "stream");
  fields.owner = owner_of(request);
  Json messages = previous_messages(m, body, fields.owner);
  if (field_of(body, "input").is_null()) bad_field("input", "'input' is missing");
  add_input(body["input"], messages);

  const Json& choice = field_of(body, "tool_choice");
  const Json tools = choice == "none" ? Json() : openai_tools(field_of(body, "tools"));
  const Json& text = field_of(body, "text");
  const Json format = text.is_object() ? field_of(text, "format") : Json();
  WantedGrammar grammar = openai_grammar(format, "text");
  if (choice == "required" || (choice.is_object() && field_of(choice, "type") == "function"))
    grammar = {"lark", tool_grammar(tools, choice.is_object() ? text_field(choice, "name") : std::string())};
  std::optional<bool> thinking;
  if (const Json& reasoning = field_of(body, "reasoning");
      reasoning.is_object() && field_of(reasoning, "effort") == "none")
    thinking = false;

  Json prompt = Json::array();
  if (const std::string instructions = text_field(body, "instructions"); !instructions.empty())
    prompt.push_back({{"role", "system"}, {"content", instructions}});
  prompt.insert(prompt.end(), messages.begin(), messages.end());
  if (prompt.empty()) bad_field("input", "'input' has nothing to answer");
  r.prompt = m.chat_prompt(checked_messages(prompt), tools, thinking);
  if (flag_field(body, "store", true)) fields.messages = std::move(messages);
  fields.head = head_of(r, body, format);
  const bool begun = !grammar && begins_in_thought(m.model.tokenizer(), r.prompt);
  const AnswerReader reader(tools, begun, flag_field(body, "parallel_tool_calls", true) ? ~std::size_t{0} : 1);
  const auto answer = std::make_shared<ResponseAnswer>(m, std::move(reply), std::move(r), std::move(fields), reader);
  answer->follow(grammar.kind, grammar.text);
  answer->start();
}

}  // namespace snug
