#include "serve/embeddings_api.hpp"

#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <bit>
#include <cmath>

#include "serve/embedding_task.hpp"
#include "serve/ollama_api.hpp"
#include "serve/openai_api.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostInputs = 2048;

using Vectors = std::vector<std::vector<float>>;

/// What is asked for, by whichever API.
struct EmbeddingRequest {
  std::vector<std::vector<TokenId>> inputs;
  std::size_t dimensions = 0;  ///< the first ones of each vector; 0: all
  std::size_t tokens = 0;      ///< of all inputs
};

/// Inputs that are not too long, or `truncate`d.
EmbeddingRequest request_of(const ServedModel& m, const Json& body, const char* field, bool truncate) {
  EmbeddingRequest r;
  check_kv_fields(m, body);
  r.inputs = prompts_field(m, body, field, kMostInputs);
  if (r.inputs.empty()) bad_field(field, fmt::format("'{}' is missing", field));
  r.dimensions = count_field(body, "dimensions", 1, m.model.config().width).value_or(0);
  for (std::vector<TokenId>& input : r.inputs) {
    if (input.empty()) bad_field(field, fmt::format("'{}' has an empty text", field));
    if (truncate && input.size() > m.scheduler.context()) input.resize(m.scheduler.context());
    if (input.size() > m.scheduler.context())
      throw ContextExceeded(
          fmt::format("an input has {} tokens, more than the context of {}", input.size(), m.scheduler.context()));
    r.tokens += input.size();
  }
  return r;
}

/// Has the vectors made, and answered with what `body_of` makes of them.
void embed(ServedModel& m, const std::shared_ptr<HttpReply>& reply, EmbeddingRequest request,
           HttpResponse (*shape)(const ApiError&), std::function<std::string(const Vectors&)> body_of) {
  const std::size_t tokens = request.tokens, dimensions = request.dimensions;
  const auto done = [=, body_of = std::move(body_of)](Vectors vectors, const std::string& error) {
    if (!error.empty()) return reply->send(shape({503, "server_error", error}));
    for (std::vector<float>& vector : vectors) {
      if (dimensions == 0) continue;
      vector.resize(dimensions);
      normalise_length(vector);
    }
    reply->note_tokens({tokens, 0, 0});
    reply->send({.body = body_of(vectors)});
  };
  const auto task = std::make_shared<EmbeddingTask>(std::move(request.inputs), done);
  // Before it is begun, as it may be done at once. The task holds the reply: the other way round neither would end.
  reply->on_gone([weak = std::weak_ptr(task)] {
    if (const auto t = weak.lock()) t->cancel();
  });
  m.scheduler.submit(task);
}

/// As short as it can be without loss, which a JSON library's doubles are not.
std::string numbers(const std::vector<float>& vector) {
  for (const float v : vector)
    if (!std::isfinite(v)) fail("an embedding is not finite");
  return fmt::format("[{}]", fmt::join(vector, ","));
}

/// Little-endian floats, as clients of OpenAI's API read them.
std::string base64(const std::vector<float>& vector) {
  static_assert(std::endian::native == std::endian::little);
  const std::size_t bytes = vector.size() * sizeof(float);
  std::string text((bytes + 2) / 3 * 4 + 1, '\0');
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), reinterpret_cast<const unsigned char*>(vector.data()),
                  static_cast<int>(bytes));
  text.pop_back();
  return text;
}

}  // namespace

void openai_embeddings(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  const std::string format = text_field(body, "encoding_format", "float");
  if (format != "float" && format != "base64")
    bad_field("encoding_format", "'encoding_format' must be float or base64");
  EmbeddingRequest wanted = request_of(m, body, "input", false);
  const std::size_t tokens = wanted.tokens;
  embed(m, reply, std::move(wanted), openai_error, [&m, format, tokens](const Vectors& vectors) {
    std::string data;
    for (std::size_t i = 0; i < vectors.size(); ++i)
      data += fmt::format(R"({}{{"object":"embedding","index":{},"embedding":{}}})", i == 0 ? "" : ",", i,
                          format == "float" ? numbers(vectors[i]) : '"' + base64(vectors[i]) + '"');
    return fmt::format(
        R"({{"object":"list","data":[{0}],"model":{1},"usage":{{"prompt_tokens":{2},"total_tokens":{2}}}}})", data,
        dump(m.options.model), tokens);
  });
}

void ollama_embed(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  EmbeddingRequest wanted = request_of(m, body, "input", flag_field(body, "truncate", true));
  const std::size_t tokens = wanted.tokens;
  const auto start = std::chrono::steady_clock::now();
  embed(m, reply, std::move(wanted), ollama_error, [&m, start, tokens](const Vectors& vectors) {
    std::string data;
    for (const std::vector<float>& vector : vectors)
      data += fmt::format("{}{}", data.empty() ? "" : ",", numbers(vector));
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - start;
    return fmt::format(
        R"({{"model":{},"embeddings":[{}],"total_duration":{},"load_duration":0,"prompt_eval_count":{}}})",
        dump(m.options.model), data, took.count(), tokens);
  });
}

void ollama_embeddings(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  embed(m, reply, request_of(m, parse_body(request), "prompt", true), ollama_error,
        [](const Vectors& vectors) { return fmt::format(R"({{"embedding":{}}})", numbers(vectors[0])); });
}

}  // namespace snug
