#include "serve/openai_api.hpp"

#include "serve/answer.hpp"
#include "serve/answer_reader.hpp"
#include "serve/infill.hpp"
#include "serve/openai_shapes.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostChoices = 128, kMostPrompts = 256, kMostTogether = 1024, kMostStops = 16, kMostLogprobs = 20;

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
  f.request = sampled_request(model, request, body);
  f.request.stop = texts_field(body, "stop", kMostStops);
  f.request.ignore_end = flag_field(body, "ignore_eos");
  f.choices = count_field(body, "n", 1, kMostChoices).value_or(1);
  f.stream = flag_field(body, "stream");
  if (const Json& options = field_of(body, "stream_options"); options.is_object())
    f.stream_usage = flag_field(options, "include_usage");
  return f;
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
  /// Of a whole answer: takes what has been added.
  virtual void gather(std::size_t index, const ServeEvent& event) { results_[index].text += event.text; }
  /// One entry of "choices" of a whole answer.
  virtual Json whole(std::size_t index, const Choice& choice) = 0;
  /// The same of a piece of a stream.
  virtual Json piece(std::size_t index, const ServeEvent& event) = 0;
  /// Of all choices, those that were no answer yet.
  virtual std::size_t thinking_tokens() const { return 0; }

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
      gather(index, event);
      choice.tokens.insert(choice.tokens.end(), event.tokens.begin(), event.tokens.end());
    }
    if (event.last() && ++finished_ == results_.size()) finish();
  }
  Json usage() const {
    ServeUsage all;
    const std::size_t each = results_.size() / prompts_.size();
    for (std::size_t i = 0; i < results_.size(); ++i) {
      const ServeUsage& u = results_[i].usage;
      all.generated_tokens += u.generated_tokens;
      if (i % each == 0) all.prompt_tokens += u.prompt_tokens, all.cached_tokens += u.cached_tokens;
    }
    return openai_usage(all, thinking_tokens());
  }
  void fail_with(const std::string& why) {
    failed_ = true;
    const HttpResponse error = openai_error({503, "server_error", why});
    if (!stream_) return reply_->send(error);
    reply_->write("data: " + error.body + "\n\n");
    reply_->end();
  }
  void finish() {
    if (stream_) {
      if (stream_usage_) {
        Json json = head(piece_object());
        json["choices"] = Json::array();
        json["usage"] = usage();
        send(json);
      }
      reply_->write("data: [DONE]\n\n");
      return reply_->end();
    }
    Json json = head(object());
    json["choices"] = Json::array();
    for (std::size_t i = 0; i < results_.size(); ++i) json["choices"].push_back(whole(i, results_[i]));
    json["usage"] = usage();
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
  ChatAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, const CommonFields& fields,
             const AnswerReader& reader)
      : OpenAiAnswer(model, std::move(reply), fields, "chatcmpl"),
        readers_(fields.choices, reader),
        said_(fields.choices) {}

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
  /// What has been added to a choice; said_ has all of it.
  AnswerPiece read(std::size_t index, const ServeEvent& event) {
    AnswerPiece piece = readers_[index].push(event), &all = said_[index];
    all.thinking += piece.thinking, all.text += piece.text;
    all.calls.insert(all.calls.end(), piece.calls.begin(), piece.calls.end());
    return piece;
  }
  std::size_t thinking_tokens() const override {
    std::size_t tokens = 0;
    for (const AnswerReader& reader : readers_) tokens += reader.thinking_tokens();
    return tokens;
  }
  void gather(std::size_t index, const ServeEvent& event) override { read(index, event); }
  Json whole(std::size_t index, const Choice& choice) override {
    const AnswerPiece& said = said_[index];
    Json message = {{"role", "assistant"}, {"content", said.text}, {"refusal", nullptr}};
    if (!said.thinking.empty()) message["reasoning_content"] = said.thinking;
    if (!said.calls.empty()) {
      if (said.text.find_first_not_of(" \n") == std::string::npos) message["content"] = nullptr;
      message["tool_calls"] = calls_json(said.calls, 0, false);
    }
    return {{"index", index},
            {"message", message},
            {"logprobs", logprobs(choice.tokens)},
            {"finish_reason", said.calls.empty() ? finish_reason(*choice.reason) : "tool_calls"}};
  }
  Json piece(std::size_t index, const ServeEvent& event) override {
    const AnswerPiece added = read(index, event);
    const std::size_t calls = said_[index].calls.size();
    Json delta = Json::object();
    if (!added.thinking.empty()) delta["reasoning_content"] = added.thinking;
    if (!added.text.empty()) delta["content"] = added.text;
    if (!added.calls.empty()) delta["tool_calls"] = calls_json(added.calls, calls - added.calls.size(), true);
    const std::string_view reason = !event.reason ? "" : calls == 0 ? finish_reason(*event.reason) : "tool_calls";
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

  std::vector<AnswerReader> readers_;
  std::vector<AnswerPiece> said_;  ///< of each choice so far
};

class TextAnswer final : public OpenAiAnswer {
public:
  /// `echo`: what each choice's text begins with.
  TextAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, const CommonFields& fields,
             std::vector<std::string> echo)
      : OpenAiAnswer(model, std::move(reply), fields, "cmpl"), echo_(std::move(echo)) {}

private:
  std::string_view object() const override { return "text_completion"; }
  std::string_view piece_object() const override { return "text_completion"; }
  std::string echo(std::size_t index) const {
    return echo_.empty() ? std::string() : echo_[index * echo_.size() / choices_];
  }
  void begin_stream() override {
    for (std::size_t i = 0; i < choices_ && !echo_.empty(); ++i)
      say(Json::array({{{"text", echo(i)}, {"index", i}, {"logprobs", nullptr}, {"finish_reason", nullptr}}}));
  }
  Json whole(std::size_t index, const Choice& choice) override {
    return {{"text", echo(index) + choice.text},
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
  std::vector<std::string> echo_;
};

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
  Json data = Json::array();
  for (const ModelState& model : models_with(m))
    data.push_back({{"id", model.name},
                    {"object", "model"},
                    {"created", model.created},
                    {"owned_by", "snug"},
                    {"context_length", model.context}});
  reply->send({.body = dump({{"object", "list"}, {"data", std::move(data)}})});
}

void openai_chat(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  CommonFields fields = common_fields(m, request, body);
  // More than there is room for means as much as there is.
  fields.request.max_tokens = count_field(body, "max_completion_tokens", 1, kAnyTokens)
                                  .value_or(count_field(body, "max_tokens", 1, kAnyTokens).value_or(kAnyTokens));
  if (flag_field(body, "logprobs"))
    fields.request.logprobs = count_field(body, "top_logprobs", 0, kMostLogprobs).value_or(0);
  const Json& choice = field_of(body, "tool_choice");
  const Json tools = choice == "none" ? Json() : openai_tools(field_of(body, "tools"));
  WantedGrammar grammar = openai_grammar(field_of(body, "response_format"), "response_format");
  if (choice == "required" || choice.is_object()) {
    const Json& function = choice.is_object() ? field_of(choice, "function") : Json();
    grammar = {"lark", tool_grammar(tools, function.is_object() ? text_field(function, "name") : std::string())};
  }
  std::optional<bool> thinking;
  if (const Json& extra = field_of(body, "chat_template_kwargs");
      extra.is_object() && extra.contains("enable_thinking"))
    thinking = flag_field(extra, "enable_thinking");
  fields.request.prompt = m.chat_prompt(checked_messages(field_of(body, "messages")), tools, thinking);
  // What follows a grammar is no thought.
  const bool begun = !grammar && begins_in_thought(m.model.tokenizer(), fields.request.prompt);
  const AnswerReader reader(tools, begun, flag_field(body, "parallel_tool_calls", true) ? ~std::size_t{0} : 1);
  const auto answer = std::make_shared<ChatAnswer>(m, std::move(reply), fields, reader);
  answer->follow(grammar.kind, grammar.text);
  answer->start();
}

void openai_completions(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  CommonFields fields = common_fields(m, request, body);
  fields.request.max_tokens = count_field(body, "max_tokens", 1, kAnyTokens).value_or(16);
  fields.request.logprobs = count_field(body, "logprobs", 0, kMostLogprobs);
  if (const auto best = count_field(body, "best_of", 1, kMostChoices); best && *best > fields.choices)
    bad_field("best_of", "'best_of' must not be more than 'n': all choices are given out, none is left out");
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::string> echo;
  if (!text_field(body, "suffix").empty()) {
    if (!field_of(body, "prompt").is_string()) bad_field("prompt", "with 'suffix', 'prompt' must be one text");
    prompts = {infill_prompt(m, {.prefix = text_field(body, "prompt"), .suffix = text_field(body, "suffix")})};
    if (flag_field(body, "echo")) echo = {text_field(body, "prompt")};
  } else {
    prompts = prompts_field(m, body, "prompt", kMostPrompts);
    if (prompts.empty()) prompts = {m.encode({}, false)};
    for (const std::vector<TokenId>& prompt : prompts) {
      if (prompt.empty()) bad_field("prompt", "'prompt' is empty, and this model has no token to begin with");
      if (flag_field(body, "echo")) echo.push_back(m.model.tokenizer().decode(prompt));
    }
  }
  fields.choices *= prompts.size();
  if (fields.choices > kMostTogether)
    bad_field("n",
              fmt::format("'n' for each prompt makes {} answers, at most {} are given", fields.choices, kMostTogether));
  const WantedGrammar grammar = openai_grammar(field_of(body, "response_format"), "response_format");
  const auto answer = std::make_shared<TextAnswer>(m, std::move(reply), fields, std::move(echo));
  answer->ask(std::move(prompts));
  answer->follow(grammar.kind, grammar.text);
  answer->start();
}

}  // namespace snug
