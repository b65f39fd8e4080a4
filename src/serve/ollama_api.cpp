#include "serve/ollama_api.hpp"

#include <fmt/chrono.h>

#include <chrono>

#include "serve/answer.hpp"
#include "serve/answer_reader.hpp"
#include "serve/infill.hpp"
#include "serve/openai_shapes.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostStops = 64;

/// RFC 3339.
std::string time_now() {
  const std::int64_t now = seconds_now();
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(now)));
}

Json details(const std::string& architecture, std::string_view size) {
  return {{"parent_model", ""},     {"format", "gguf"},
          {"family", architecture}, {"families", Json::array({architecture})},
          {"parameter_size", size}, {"quantization_level", ""}};
}

ServeRequest request_of(const ServedModel& m, const HttpRequest& request, const Json& body) {
  check_kv_fields(m, body);
  static const Json kNothing = Json::object();
  const Json& given = field_of(body, "options");
  const Json& options = given.is_object() ? given : kNothing;
  ServeRequest r = sampled_request(m, request, options);
  r.max_tokens = kAnyTokens;
  if (const auto p = number_field(options, "repeat_penalty", 0.01, 100))
    r.sampler.repetition_penalty = static_cast<float>(*p);
  r.stop = texts_field(options, "stop", kMostStops);
  // Negative: until the end.
  if (const Json& n = field_of(options, "num_predict"); n.is_number_integer() && n > 0)
    r.max_tokens = n.get<std::size_t>();
  return r;
}

std::optional<bool> thinking_of(const Json& body) {
  if (!field_of(body, "think").is_boolean()) return {};
  return flag_field(body, "think");
}

/// Lines of JSON, or one object.
class LinesAnswer final : public Answer {
public:
  LinesAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, ServeRequest request, bool stream, bool chat,
              AnswerReader reader)
      : Answer(model, std::move(reply), std::move(request)), stream_(stream), chat_(chat), reader_(std::move(reader)) {}

private:
  using Clock = std::chrono::steady_clock;
  static std::int64_t nanoseconds(Clock::duration d) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
  }
  Json line(const std::string& text, const std::string& thinking) const {
    Json json = {{"model", model_.options.model}, {"created_at", time_now()}};
    if (chat_)
      json["message"] = {{"role", "assistant"}, {"content", text}};
    else
      json["response"] = text;
    if (!thinking.empty()) (chat_ ? json["message"] : json)["thinking"] = thinking;
    json["done"] = false;
    return json;
  }
  HttpResponse refusal(const ApiError& error) const override { return ollama_error(error); }
  void begin() override {
    if (stream_) reply_->begin("application/x-ndjson");
  }
  void take(std::size_t, const ServeEvent& event) override {
    const Clock::time_point now = Clock::now();
    if (first_ == Clock::time_point()) first_ = now;
    if (!event.error.empty()) {
      const HttpResponse error = ollama_error({503, "", event.error});
      if (!stream_) return reply_->send(error);
      reply_->write(error.body + "\n");
      return reply_->end();
    }
    const AnswerPiece piece = reader_.push(event);
    all_.text += piece.text, all_.thinking += piece.thinking;
    all_.calls.insert(all_.calls.end(), piece.calls.begin(), piece.calls.end());
    if (stream_ && !(piece.text.empty() && piece.thinking.empty()))
      reply_->write(dump(line(piece.text, piece.thinking)) + "\n");
    if (!event.last()) return;
    Json end = stream_ ? line({}, {}) : line(all_.text, all_.thinking);
    for (const ToolCall& call : all_.calls)
      end["message"]["tool_calls"].push_back({{"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    const bool cut = event.reason == StopReason::max_tokens || event.reason == StopReason::context_full;
    end["done"] = true;
    end["done_reason"] = cut ? "length" : "stop";
    end["total_duration"] = nanoseconds(now - start_);
    end["load_duration"] = 0;
    end["prompt_eval_count"] = event.usage.prompt_tokens;
    end["prompt_eval_duration"] = nanoseconds(first_ - start_);
    end["eval_count"] = event.usage.generated_tokens;
    end["eval_duration"] = nanoseconds(now - first_);
    if (!stream_) return reply_->send({.body = dump(end)});
    reply_->write(dump(end) + "\n");
    reply_->end();
  }

  bool stream_, chat_;
  AnswerReader reader_;
  AnswerPiece all_;
  Clock::time_point start_ = Clock::now(), first_{};
};

void answer(ServedModel& m, std::shared_ptr<HttpReply> reply, const Json& body, ServeRequest request, bool chat,
            const Json& tools) {
  const Json& format = field_of(body, "format");
  const bool begun = (format.is_null() || format == "") && begins_in_thought(m.model.tokenizer(), request.prompt);
  const auto answer = std::make_shared<LinesAnswer>(m, std::move(reply), std::move(request),
                                                    flag_field(body, "stream", true), chat, AnswerReader(tools, begun));
  if (format == "json")
    answer->follow("json_schema", schema_grammar({{"type", "object"}}));
  else if (format.is_object())
    answer->follow("json_schema", schema_grammar(format));
  else if (!format.is_null() && format != "")
    bad_field("format", "'format' must be \"json\" or a JSON schema");
  answer->start();
}

}  // namespace

HttpResponse ollama_error(const ApiError& error) {
  return {error.status, "application/json", dump({{"error", error.what()}})};
}

void ollama_version(ServedModel&, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  reply->send({.body = R"({"version":"0.5.0"})"});  // of the API that clients know
}

void ollama_tags(ServedModel& m, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  Json models = Json::array();
  for (const ModelState& model : models_with(m))
    models.push_back({{"name", model.name},
                      {"model", model.name},
                      {"modified_at", time_now()},
                      {"size", model.file_bytes},
                      {"digest", ""},
                      {"details", details(model.architecture, model.size_label)}});
  reply->send({.body = dump({{"models", std::move(models)}})});
}

void ollama_show(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  parse_body(request);
  const std::string& architecture = m.model.config().architecture;
  const Json info = {{"general.architecture", architecture},
                     {architecture + ".context_length", m.scheduler.context()},
                     {architecture + ".embedding_length", m.model.config().width}};
  Json capabilities = Json::array({"completion", "embedding"});
  const std::string_view source = m.model.file().get_string("tokenizer.chat_template").value_or("");
  if (source.find("tools") != source.npos) capabilities.push_back("tools");
  if (source.find("<think>") != source.npos) capabilities.push_back("thinking");
  if (find_infill_tokens(m.model.file(), m.model.tokenizer())) capabilities.push_back("insert");
  reply->send(
      {.body = dump({{"modelfile", ""},
                     {"parameters", ""},
                     {"template", source},
                     {"details", details(architecture, m.model.file().get_string("general.size_label").value_or(""))},
                     {"model_info", info},
                     {"capabilities", std::move(capabilities)}})});
}

void ollama_chat(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  ServeRequest r = request_of(m, request, body);
  const Json tools = openai_tools(field_of(body, "tools"));
  r.prompt = m.chat_prompt(checked_messages(field_of(body, "messages")), tools, thinking_of(body));
  answer(m, std::move(reply), body, std::move(r), true, tools);
}

void ollama_generate(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  ServeRequest r = request_of(m, request, body);
  const std::string prompt = text_field(body, "prompt"), system = text_field(body, "system");
  if (const std::string suffix = text_field(body, "suffix"); !suffix.empty()) {
    r.prompt = infill_prompt(m, {.prefix = prompt, .suffix = suffix});
  } else if (flag_field(body, "raw")) {
    r.prompt = m.encode(prompt, true);
  } else {
    Json messages = Json::array();
    if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
    messages.push_back({{"role", "user"}, {"content", prompt}});
    r.prompt = m.chat_prompt(messages, Json(), thinking_of(body));
  }
  answer(m, std::move(reply), body, std::move(r), false, Json());
}

}  // namespace snug
