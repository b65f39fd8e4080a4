#include "serve/openai_api.hpp"

#include "serve/answer.hpp"
#include "serve/request_fields.hpp"
#include "serve/tool_calls.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostChoices = 128, kMostStops = 16, kMostLogprobs = 20;

std::string_view finish_reason(StopReason reason) {
  return reason == StopReason::max_tokens || reason == StopReason::context_full ? "length" : "stop";
}

/// What chat and text have in common.
struct CommonFields {
  ServeRequest request;
  std::size_t choices = 1;
  bool stream = false, stream_usage = false;
};

CommonFields common_fields(const ServedModel& model, const HttpRequest& request, const Json& body) {
  CommonFields f;
  f.request.sampler = model.options.sampler;
  take_sampling(body, f.request.sampler);
  f.request.sampler.seed = take_seed(body);
  take_precedence(body, request, f.request);
  f.request.stop = texts_field(body, "stop", kMostStops);
  f.request.ignore_end = flag_field(body, "ignore_eos");
  f.choices = count_field(body, "n", 1, kMostChoices).value_or(1);
  f.stream = flag_field(body, "stream");
  if (const Json& options = field_of(body, "stream_options"); options.is_object())
    f.stream_usage = flag_field(options, "include_usage");
  return f;
}

Json usage_json(const std::vector<ServeUsage>& usages) {
  std::size_t prompt = usages.empty() ? 0 : usages[0].prompt_tokens, generated = 0,
              cached = usages.empty() ? 0 : usages[0].cached_tokens;
  for (const ServeUsage& u : usages) generated += u.generated_tokens;
  return {{"prompt_tokens", prompt},
          {"completion_tokens", generated},
          {"total_tokens", prompt + generated},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

/// Choices, whole or as a stream.
class OpenAiAnswer : public Answer {
public:
  OpenAiAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, const CommonFields& fields,
               std::string_view prefix)
      : Answer(model, std::move(reply), fields.request, fields.choices),
        stream_(fields.stream),
        stream_usage_(fields.stream_usage),
        id_(fmt::format("{}-{:016x}", prefix, random_seed())),
        results_(fields.choices) {}

protected:
  struct Choice {
    std::string text;
    std::vector<ServeToken> tokens;
    std::optional<StopReason> reason;
    ServeUsage usage;
  };

  virtual std::string_view object() const = 0;
  virtual std::string_view piece_object() const = 0;
  virtual void begin_stream() {}
  /// One entry of "choices" of a whole answer.
  virtual Json whole(std::size_t index, const Choice& choice) = 0;
  /// The same of a piece of a stream.
  virtual Json piece(std::size_t index, const ServeEvent& event) = 0;

  void say(Json choices) {
    Json json = head(piece_object());
    json["choices"] = std::move(choices);
    if (stream_usage_) json["usage"] = nullptr;
    send(json);
  }
  Json head(std::string_view object) const {
    return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_.options.model}};
  }
  /// Bytes of a token, as text.
  std::string token_text(TokenId token) const { return model_.model.tokenizer().piece(token, true); }

private:
  void begin() override {
    if (!stream_) return;
    reply_->begin("text/event-stream");
    begin_stream();
  }
  void send(const Json& json) { reply_->write("data: " + dump(json) + "\n\n"); }
  void take(std::size_t index, const ServeEvent& event) override {
    if (failed_) return;
    if (!event.error.empty()) return fail_with(event.error);
    Choice& choice = results_[index];
    choice.usage = event.usage;
    choice.reason = event.reason;
    if (stream_) {
      say(Json::array({piece(index, event)}));
    } else {
      choice.text += event.text;
      choice.tokens.insert(choice.tokens.end(), event.tokens.begin(), event.tokens.end());
    }
    if (event.last() && ++finished_ == results_.size()) finish();
  }
  void fail_with(const std::string& why) {
    failed_ = true;
    const HttpResponse error = openai_error({503, "server_error", why});
    if (!stream_) return reply_->send(error);
    reply_->write("data: " + error.body + "\n\n");
    reply_->end();
  }
  void finish() {
    std::vector<ServeUsage> usages;
    for (const Choice& c : results_) usages.push_back(c.usage);
    if (stream_) {
      if (stream_usage_) {
        Json json = head(piece_object());
        json["choices"] = Json::array();
        json["usage"] = usage_json(usages);
        send(json);
      }
      reply_->write("data: [DONE]\n\n");
      return reply_->end();
    }
    Json json = head(object());
    json["choices"] = Json::array();
    for (std::size_t i = 0; i < results_.size(); ++i) json["choices"].push_back(whole(i, results_[i]));
    json["usage"] = usage_json(usages);
    reply_->send({.body = dump(json)});
  }

  bool stream_, stream_usage_;
  std::string id_;
  std::int64_t created_ = seconds_now();
  std::vector<Choice> results_;
  std::size_t finished_ = 0;
  bool failed_ = false;
};

Json bytes_json(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

class ChatAnswer final : public OpenAiAnswer {
public:
  ChatAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, const CommonFields& fields, const Json& tools)
      : OpenAiAnswer(model, std::move(reply), fields, "chatcmpl"),
        readers_(fields.choices, ToolCallReader(tools)),
        calls_(fields.choices) {}

private:
  std::string_view object() const override { return "chat.completion"; }
  std::string_view piece_object() const override { return "chat.completion.chunk"; }
  void begin_stream() override {
    for (std::size_t i = 0; i < choices_; ++i)
      say(Json::array({{{"index", i},
                        {"delta", {{"role", "assistant"}, {"content", ""}}},
                        {"logprobs", nullptr},
                        {"finish_reason", nullptr}}}));
  }
  Json whole(std::size_t index, const Choice& choice) override {
    std::vector<ToolCall>& calls = calls_[index];
    std::string text = readers_[index].push(choice.text, calls);
    text += readers_[index].finish(calls);
    Json message = {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
    if (!calls.empty()) {
      if (text.find_first_not_of(" \n") == text.npos) message["content"] = nullptr;
      message["tool_calls"] = calls_json(calls, 0, false);
    }
    return {{"index", index},
            {"message", message},
            {"logprobs", logprobs(choice.tokens)},
            {"finish_reason", calls.empty() ? finish_reason(*choice.reason) : "tool_calls"}};
  }
  Json piece(std::size_t index, const ServeEvent& event) override {
    std::vector<ToolCall> calls;
    std::string text = readers_[index].push(event.text, calls);
    if (event.last()) text += readers_[index].finish(calls);
    Json delta = Json::object();
    if (!text.empty()) delta["content"] = text;
    if (!calls.empty()) delta["tool_calls"] = calls_json(calls, calls_[index].size(), true);
    calls_[index].insert(calls_[index].end(), calls.begin(), calls.end());
    const std::string_view reason = !event.reason           ? ""
                                    : calls_[index].empty() ? finish_reason(*event.reason)
                                                            : "tool_calls";
    return {{"index", index},
            {"delta", delta},
            {"logprobs", logprobs(event.tokens)},
            {"finish_reason", reason.empty() ? Json() : Json(reason)}};
  }
  static Json calls_json(const std::vector<ToolCall>& calls, std::size_t first, bool numbered) {
    Json json = Json::array();
    for (const ToolCall& call : calls) {
      Json entry = Json::object();
      if (numbered) entry["index"] = first + json.size();
      entry["id"] = call.id;
      entry["type"] = "function";
      entry["function"] = {{"name", call.name}, {"arguments", dump(call.arguments)}};
      json.push_back(std::move(entry));
    }
    return json;
  }
  Json logprobs(const std::vector<ServeToken>& tokens) const {
    if (!request_.logprobs) return nullptr;
    const auto entry = [this](const TokenLogprob& t) {
      const std::string text = token_text(t.token);
      return Json{{"token", text}, {"logprob", t.logprob}, {"bytes", bytes_json(text)}};
    };
    Json content = Json::array();
    for (const ServeToken& token : tokens) {
      Json top = Json::array();
      for (const TokenLogprob& t : token.top) top.push_back(entry(t));
      Json e = entry(token.chosen);
      e["top_logprobs"] = std::move(top);
      content.push_back(std::move(e));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }

  std::vector<ToolCallReader> readers_;
  std::vector<std::vector<ToolCall>> calls_;  ///< of each choice so far
};

class TextAnswer final : public OpenAiAnswer {
public:
  TextAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, const CommonFields& fields, std::string echo)
      : OpenAiAnswer(model, std::move(reply), fields, "cmpl"), echo_(std::move(echo)) {}

private:
  std::string_view object() const override { return "text_completion"; }
  std::string_view piece_object() const override { return "text_completion"; }
  void begin_stream() override {
    if (echo_.empty()) return;
    for (std::size_t i = 0; i < choices_; ++i)
      say(Json::array({{{"text", echo_}, {"index", i}, {"logprobs", nullptr}, {"finish_reason", nullptr}}}));
  }
  Json whole(std::size_t index, const Choice& choice) override {
    return {{"text", echo_ + choice.text},
            {"index", index},
            {"logprobs", logprobs(choice.tokens)},
            {"finish_reason", finish_reason(*choice.reason)}};
  }
  Json piece(std::size_t index, const ServeEvent& event) override {
    return {{"text", event.text},
            {"index", index},
            {"logprobs", logprobs(event.tokens)},
            {"finish_reason", event.reason ? Json(finish_reason(*event.reason)) : Json()}};
  }
  Json logprobs(const std::vector<ServeToken>& tokens) const {
    if (!request_.logprobs) return nullptr;
    Json texts = Json::array(), values = Json::array(), tops = Json::array();
    for (const ServeToken& token : tokens) {
      texts.push_back(token_text(token.chosen.token));
      values.push_back(token.chosen.logprob);
      Json top = Json::object();
      for (const TokenLogprob& t : token.top) top[token_text(t.token)] = t.logprob;
      tops.push_back(std::move(top));
    }
    return {{"tokens", texts}, {"token_logprobs", values}, {"top_logprobs", tops}};
  }
  std::string echo_;
};

/// Kind and text for Grammars; empty: none.
std::pair<std::string, std::string> wanted_grammar(const Json& format) {
  if (format.is_null()) return {};
  if (!format.is_object()) bad_field("response_format", "'response_format' must be an object");
  const std::string type = text_field(format, "type", "text");
  if (type == "text") return {};
  if (type == "json_object") return {"json_schema", schema_grammar({{"type", "object"}})};
  if (type == "regex") return {"regex", text_field(format, "pattern")};
  if (type == "grammar") return {"lark", text_field(format, "grammar")};
  if (type != "json_schema")
    bad_field("response_format", "its type must be text, json_object, json_schema, regex or grammar");
  const Json& wrapped = field_of(format, "json_schema");
  const Json& schema = wrapped.is_object() ? field_of(wrapped, "schema") : field_of(format, "schema");
  if (!schema.is_object() && !schema.is_boolean()) bad_field("response_format", "'json_schema' has no 'schema'");
  return {"json_schema", schema_grammar(schema)};
}

/// Tools of kinds that a template cannot show are left out.
Json known_tools(const Json& tools) {
  if (!tools.is_array()) return nullptr;
  Json known = Json::array();
  for (const Json& tool : tools)
    if (tool.is_object() && field_of(tool, "type") == "function") known.push_back(tool);
  return known.empty() ? Json() : known;
}

}  // namespace

HttpResponse openai_error(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return {error.status, "application/json",
          dump({{"error",
                 {{"message", error.what()},
                  {"type", error.type},
                  {"param", or_null(error.param)},
                  {"code", or_null(error.code)}}}})};
}

void openai_models(ServedModel& m, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  const Json body = {{"object", "list"},
                     {"data", Json::array({{{"id", m.options.model},
                                            {"object", "model"},
                                            {"created", m.created},
                                            {"owned_by", "snug"},
                                            {"context_length", m.scheduler.context()}}})}};
  reply->send({.body = dump(body)});
}

void openai_chat(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  CommonFields fields = common_fields(m, request, body);
  // More than there is room for means as much as there is.
  fields.request.max_tokens = count_field(body, "max_completion_tokens", 1, kAnyTokens)
                                  .value_or(count_field(body, "max_tokens", 1, kAnyTokens).value_or(kAnyTokens));
  if (flag_field(body, "logprobs"))
    fields.request.logprobs = count_field(body, "top_logprobs", 0, kMostLogprobs).value_or(0);
  const auto [kind, grammar] = wanted_grammar(field_of(body, "response_format"));
  std::optional<bool> thinking;
  if (const Json& extra = field_of(body, "chat_template_kwargs");
      extra.is_object() && extra.contains("enable_thinking"))
    thinking = flag_field(extra, "enable_thinking");
  const Json& choice = field_of(body, "tool_choice");
  const Json tools = choice == "none" ? Json() : known_tools(field_of(body, "tools"));
  fields.request.prompt = m.chat_prompt(checked_messages(field_of(body, "messages")), tools, thinking);
  const auto answer = std::make_shared<ChatAnswer>(m, std::move(reply), fields, tools);
  if (choice == "required" || choice.is_object()) {
    const Json& function = choice.is_object() ? field_of(choice, "function") : Json();
    answer->follow("lark", tool_grammar(tools, function.is_object() ? text_field(function, "name") : std::string()));
  } else {
    answer->follow(kind, grammar);
  }
  answer->start();
}

void openai_completions(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  CommonFields fields = common_fields(m, request, body);
  fields.request.max_tokens = count_field(body, "max_tokens", 1, kAnyTokens).value_or(16);
  fields.request.logprobs = count_field(body, "logprobs", 0, kMostLogprobs);
  const Json& prompt = field_of(body, "prompt");
  if (prompt.is_array() && !prompt.empty() && prompt[0].is_number_integer()) {
    for (const Json& token : prompt) {
      if (!token.is_number_integer() || token < 0 || token >= m.model.config().vocab_size)
        bad_field("prompt", "'prompt' has something that is no token of this model");
      fields.request.prompt.push_back(token.get<TokenId>());
    }
  } else {
    const std::vector<std::string> texts = texts_field(body, "prompt", 1);
    fields.request.prompt = m.encode(texts.empty() ? std::string() : texts[0], false);
  }
  if (fields.request.prompt.empty())
    bad_field("prompt", "'prompt' is empty, and this model has no token to begin with");
  std::string echo;
  if (flag_field(body, "echo")) echo = m.model.tokenizer().decode(fields.request.prompt);
  std::make_shared<TextAnswer>(m, std::move(reply), fields, std::move(echo))->start();
}

}  // namespace snug
