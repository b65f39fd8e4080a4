#include "serve/request_fields.hpp"

#include <atomic>
#include <charconv>
#include <chrono>
#include <random>

namespace snug {

namespace {
constexpr int kMostPriority = 1000;
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

namespace {

constexpr int kMostDepth = 500;
class TooDeep : public Error {
public:
  TooDeep() : Error(fmt::format("nested deeper than {}", kMostDepth)) {}
};

/// Throws TooDeep and what nlohmann::json does.
Json parse_bounded(std::string_view text) {
  return Json::parse(text, [](int depth, Json::parse_event_t, const Json&) {
    if (depth > kMostDepth) throw TooDeep();
    return true;
  });
}

}  // namespace

Json parse_json(std::string_view text) {
  try {
    return parse_bounded(text);
  } catch (const std::exception&) {
    return Json(Json::value_t::discarded);
  }
}

Json parse_body(const HttpRequest& request) {
  Json body;
  try {
    body = parse_bounded(request.body);
  } catch (const std::exception& e) {
    throw ApiError(400, "invalid_request_error", fmt::format("the body is not JSON: {}", e.what()));
  }
  if (!body.is_object()) throw ApiError(400, "invalid_request_error", "the body must be a JSON object");
  return body;
}

void take_sampling(const Json& body, SamplerOptions& s) {
  const auto take = [&body](const char* name, double least, double most, auto& value) {
    if (const auto number = number_field(body, name, least, most))
      value = static_cast<std::remove_reference_t<decltype(value)>>(*number);
  };
  take("temperature", 0, 100, s.temperature);
  take("top_p", 0, 1, s.top_p);
  take("min_p", 0, 1, s.min_p);
  take("typical_p", 0, 1, s.typical_p);
  take("repetition_penalty", 0.01, 100, s.repetition_penalty);
  take("presence_penalty", -2, 2, s.presence_penalty);
  take("frequency_penalty", -2, 2, s.frequency_penalty);
  if (const auto k = count_field(body, "top_k", 0, 1'000'000)) s.top_k = static_cast<std::uint32_t>(*k);
}

namespace {

constexpr std::size_t kMostBiases = 4096;

/// {"TOKEN": what is added to its logit}
void take_logit_bias(const ServedModel& m, const Json& body, SamplerOptions& s) {
  const Json& biases = field_of(body, "logit_bias");
  if (biases.is_null()) return;
  if (!biases.is_object() || biases.size() > kMostBiases)
    bad_field("logit_bias", fmt::format("'logit_bias' must be an object of at most {} tokens", kMostBiases));
  for (const auto& [name, bias] : biases.items()) {
    TokenId token = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), token);
    if (error != std::errc() || end != name.data() + name.size() || token < 0 ||
        static_cast<std::size_t>(token) >= m.model.config().vocab_size)
      bad_field("logit_bias", fmt::format("'logit_bias': \"{}\" is no token of this model", name));
    if (!bias.is_number() || !(bias >= -100 && bias <= 100))
      bad_field("logit_bias", "'logit_bias' must have numbers between -100 and 100");
    s.logit_bias.emplace_back(token, bias.get<float>());
  }
}

std::vector<TokenId> tokens_of(const ServedModel& m, const Json& list, const char* name) {
  std::vector<TokenId> tokens;
  for (const Json& token : list) {
    if (!token.is_number_integer() || token < 0 || token >= m.model.config().vocab_size)
      bad_field(name, fmt::format("'{}' has something that is no token of this model", name));
    tokens.push_back(token.get<TokenId>());
  }
  return tokens;
}

}  // namespace

ServeRequest sampled_request(const ServedModel& m, const HttpRequest& request, const Json& body) {
  check_kv_fields(m, body);
  ServeRequest r;
  r.sampler = m.options.sampler;
  take_sampling(body, r.sampler);
  take_logit_bias(m, body, r.sampler);
  r.sampler.seed = take_seed(body);
  take_precedence(body, request, r);
  return r;
}

void check_kv_fields(const ServedModel& m, const Json& body) {
  if (const std::string kv = text_field(body, "kv"); !kv.empty()) {
    std::string name;
    try {
      name = parse_kv_choice(kv).name();
    } catch (const Error& e) {
      bad_field("kv", e.what());
    }
    if (name != m.model.kv_name())
      bad_field("kv", fmt::format("this server keeps keys and values as {}, not {}: that is chosen when it starts "
                                  "(--kv)",
                                  m.model.kv_name(), name));
  }
  if (const std::string policy = text_field(body, "kv_policy", "none"); policy != "none")
    bad_field("kv_policy", fmt::format("this server keeps all tokens: its 'kv_policy' is none, not {}", policy));
}

std::vector<std::vector<TokenId>> prompts_field(const ServedModel& m, const Json& body, const char* name,
                                                std::size_t most) {
  const Json& value = field_of(body, name);
  if (value.is_null()) return {};
  if (value.is_string()) return {m.encode(value.get<std::string>(), false)};
  if (!value.is_array() || value.empty() || (!value[0].is_number() && value.size() > most))
    bad_field(name, fmt::format("'{}' must be a text, tokens, or a list of at most {} of them", name, most));
  if (value[0].is_number()) return {tokens_of(m, value, name)};
  std::vector<std::vector<TokenId>> prompts;
  for (const Json& prompt : value) {
    if (!prompt.is_string() && !prompt.is_array())
      bad_field(name, fmt::format("'{}' must have texts or lists of tokens only", name));
    prompts.push_back(prompt.is_string() ? m.encode(prompt.get<std::string>(), false) : tokens_of(m, prompt, name));
  }
  return prompts;
}

std::uint64_t take_seed(const Json& body) {
  const Json& seed = field_of(body, "seed");
  if (seed.is_null()) return random_seed();
  if (!seed.is_number_integer()) bad_field("seed", "'seed' must be a whole number");
  return static_cast<std::uint64_t>(seed.get<std::int64_t>());
}

std::uint64_t random_seed() {
  static std::atomic<std::uint64_t> next{std::random_device{}()};
  return next += 0x9e3779b97f4a7c15u;
}

void take_precedence(const Json& body, const HttpRequest& request, ServeRequest& into) {
  into.owner = request.key();
  if (const Json& priority = field_of(body, "priority"); !priority.is_null()) {
    if (!priority.is_number_integer() || priority < -kMostPriority || priority > kMostPriority)
      bad_field("priority", fmt::format("'priority' must be a whole number between -{0} and {0}", kMostPriority));
    into.priority = priority.get<int>();
  }
  if (const auto seconds = number_field(body, "timeout", 0.001, 86400))
    into.deadline = std::chrono::milliseconds(static_cast<std::int64_t>(*seconds * 1000));
}

std::string content_text(const Json& content) {
  if (content.is_null()) return {};
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) bad_field("messages", "a message's content must be a string or a list of parts");
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object() || field_of(part, "type") != "text" || !field_of(part, "text").is_string())
      bad_field("messages", "parts of a message's content must be of type \"text\": this model reads nothing else");
    text += part["text"].get<std::string>();
  }
  return text;
}

namespace {

/// Templates want a call's arguments as an object; clients send them as text.
void read_arguments(Json& call) {
  if (!call.is_object() || !field_of(call, "function").is_object()) return;
  const Json& given = field_of(call["function"], "arguments");
  if (!given.is_string()) return;
  Json parsed = parse_json(given.get_ref<const std::string&>());
  if (!parsed.is_discarded()) call["function"]["arguments"] = std::move(parsed);
}

}  // namespace

Json checked_messages(const Json& messages) {
  if (!messages.is_array() || messages.empty())
    bad_field("messages", "'messages' must be a list of at least one message");
  Json checked = messages;
  for (Json& message : checked) {
    if (!message.is_object() || !field_of(message, "role").is_string())
      bad_field("messages", "each message must be an object with a 'role'");
    if (message["role"] == "developer") message["role"] = "system";
    message["content"] = content_text(field_of(message, "content"));
    if (const auto calls = message.find("tool_calls"); calls != message.end() && calls->is_array())
      for (Json& call : *calls) read_arguments(call);
  }
  return checked;
}

std::string schema_grammar(Json schema) {
  if (schema.is_object() && !schema.contains("x-guidance"))
    schema["x-guidance"] = {{"whitespace_flexible", false}, {"item_separator", ", "}, {"key_separator", ": "}};
  return dump(schema);
}

std::int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace snug
