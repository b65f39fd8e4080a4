#include "serve/infill.hpp"

#include "serve/answer.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostStops = 64, kMostExtra = 256;

/// What published models call them: prefix, suffix, middle, repository, file.
constexpr std::string_view kKnown[][5] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"},  // Qwen
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<repo_name>", "<file_sep>"},            // StarCoder
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<reponame>", ""},                       // SantaCoder, Granite
    {"<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>", "", ""},
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "", ""},  // DeepSeek
    {"<PRE>", "<SUF>", "<MID>", "", ""},
    {"▁<PRE>", "▁<SUF>", "▁<MID>", "", ""},  // Code Llama
};

}  // namespace

std::optional<InfillTokens> find_infill_tokens(const GgufFile& file, const Tokenizer& tokenizer) {
  InfillTokens t;
  const auto from_file = [&](std::initializer_list<const char*> keys, TokenId& token) {
    for (const char* key : keys)
      if (const auto id = file.get_uint(fmt::format("tokenizer.ggml.{}_token_id", key)); id && *id < tokenizer.size())
        token = static_cast<TokenId>(*id);
  };
  from_file({"prefix", "fim_pre"}, t.prefix);
  from_file({"suffix", "fim_suf"}, t.suffix);
  from_file({"middle", "fim_mid"}, t.middle);
  from_file({"fim_rep"}, t.repository);
  from_file({"fim_sep"}, t.file);
  if (t.prefix >= 0 && t.suffix >= 0 && t.middle >= 0) return t;
  const auto called = [&](std::string_view name) -> TokenId {
    if (name.empty()) return -1;
    const std::vector<TokenId> ids = tokenizer.encode(name, {.add_special = false, .parse_special = true});
    return ids.size() == 1 && tokenizer.piece(ids[0], true) == name ? ids[0] : -1;
  };
  for (const auto& names : kKnown) {
    t = {called(names[0]), called(names[1]), called(names[2]), called(names[3]), called(names[4])};
    if (t.prefix >= 0 && t.suffix >= 0 && t.middle >= 0) return t;
  }
  return {};
}

std::vector<TokenId> infill_prompt(const ServedModel& m, const InfillText& text) {
  const Tokenizer& tokenizer = m.model.tokenizer();
  const auto t = find_infill_tokens(m.model.file(), tokenizer);
  if (!t)
    throw ApiError(400, "invalid_request_error",
                   "this model cannot fill in the middle: its file has no tokens for a prefix, a suffix and a middle",
                   "suffix", "unsupported_value");
  std::vector<TokenId> prompt;
  const auto add = [&](std::string_view part) {
    const std::vector<TokenId> ids = tokenizer.encode(part, {.add_special = false, .parse_special = false});
    prompt.insert(prompt.end(), ids.begin(), ids.end());
  };
  if (tokenizer.adds_bos()) prompt.push_back(tokenizer.bos());
  // Other files first, as models were shown whole repositories.
  if (!text.extra.empty() && t->repository >= 0) {
    prompt.push_back(t->repository);
    add("project\n");
  }
  for (const InfillText::File& file : text.extra) {
    if (t->file >= 0) prompt.push_back(t->file);
    add(fmt::format("{}{}\n", t->file >= 0 ? file.name + "\n" : "", file.text));
  }
  if (!text.extra.empty() && t->file >= 0) {
    prompt.push_back(t->file);
    add("this file\n");
  }
  prompt.push_back(t->prefix);
  add(text.prefix);
  prompt.push_back(t->suffix);
  add(text.suffix);
  prompt.push_back(t->middle);
  return prompt;
}

namespace {

/// As llama.cpp's server answers: {"content": ...}, whole or in pieces.
class InfillAnswer final : public Answer {
public:
  InfillAnswer(ServedModel& model, std::shared_ptr<HttpReply> reply, ServeRequest request, bool stream, bool only_read)
      : Answer(model, std::move(reply), std::move(request)), stream_(stream), only_read_(only_read) {}

private:
  void begin() override {
    if (stream_) reply_->begin("text/event-stream");
  }
  void take(std::size_t, const ServeEvent& event) override {
    if (!event.error.empty()) {
      const HttpResponse error = llama_error({503, "unavailable_error", event.error});
      if (!stream_) return reply_->send(error);
      reply_->write(fmt::format("data: {}\n\n", error.body));
      return reply_->end();
    }
    if (!only_read_) text_ += event.text;
    if (!event.last()) {
      if (stream_ && !only_read_)
        reply_->write(fmt::format("data: {}\n\n", dump({{"index", 0}, {"content", event.text}, {"stop", false}})));
      return;
    }
    const bool cut = event.reason == StopReason::max_tokens || event.reason == StopReason::context_full;
    const Json end = {{"index", 0},
                      {"content", !stream_     ? text_
                                  : only_read_ ? std::string()
                                               : event.text},
                      {"stop", true},
                      {"model", model_.options.model},
                      {"tokens_predicted", only_read_ ? 0 : event.usage.generated_tokens},
                      {"tokens_evaluated", event.usage.prompt_tokens},
                      {"tokens_cached", event.usage.cached_tokens},
                      {"truncated", false},
                      {"stop_type", cut                                       ? "limit"
                                    : event.reason == StopReason::stop_string ? "word"
                                                                              : "eos"},
                      {"stopping_word", event.stop}};
    if (!stream_) return reply_->send({.body = dump(end)});
    reply_->write(fmt::format("data: {}\n\n", dump(end)));
    reply_->end();
  }

  bool stream_, only_read_;
  std::string text_;
};

}  // namespace

HttpResponse llama_error(const ApiError& error) {
  const std::string type = error.code == "context_length_exceeded" ? "exceed_context_size_error" : error.type;
  return {error.status, "application/json",
          dump({{"error", {{"code", error.status}, {"message", error.what()}, {"type", type}}}})};
}

void llama_infill(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  ServeRequest r = sampled_request(m, request, body);
  if (const auto p = number_field(body, "repeat_penalty", 0.01, 100))
    r.sampler.repetition_penalty = static_cast<float>(*p);
  r.stop = texts_field(body, "stop", kMostStops);
  // Negative: until the end. None: the prompt is only read, for the next request.
  const Json& most = field_of(body, "n_predict");
  if (!most.is_null() && !most.is_number_integer()) bad_field("n_predict", "'n_predict' must be a whole number");
  const bool only_read = most == 0;
  r.max_tokens = most.is_null() || most < 0 ? kAnyTokens : std::max<std::size_t>(1, most.get<std::size_t>());
  InfillText text{.prefix = text_field(body, "input_prefix") + text_field(body, "prompt"),
                  .suffix = text_field(body, "input_suffix")};
  const Json& extra = field_of(body, "input_extra");
  if (!extra.is_null() && (!extra.is_array() || extra.size() > kMostExtra))
    bad_field("input_extra", fmt::format("'input_extra' must be a list of at most {} files", kMostExtra));
  for (const Json& file : extra) {
    if (!file.is_object() || !field_of(file, "text").is_string())
      bad_field("input_extra", "'input_extra' must have objects with a 'text' (and a 'filename')");
    text.extra.push_back({text_field(file, "filename", "other file"), text_field(file, "text")});
  }
  r.prompt = infill_prompt(m, text);
  std::make_shared<InfillAnswer>(m, std::move(reply), std::move(r), flag_field(body, "stream"), only_read)->start();
}

}  // namespace snug
