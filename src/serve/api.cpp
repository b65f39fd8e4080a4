#include "serve/api.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "serve/anthropic_api.hpp"
#include "serve/embeddings_api.hpp"
#include "serve/infill.hpp"
#include "serve/ollama_api.hpp"
#include "serve/openai_api.hpp"
#include "serve/request_fields.hpp"
#include "serve/responses_api.hpp"
#include "serve/sessions_api.hpp"
#include "serve/status_api.hpp"

namespace snug {

namespace {

void health(ServedModel&, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  reply->send({.body = R"({"status":"ok"})"});
}

void add_models(std::string& text, const std::vector<ModelState>& models) {
  const auto add = [&](const char* name, const char* type, const char* help, auto&& value) {
    text += fmt::format("# HELP snug_model_{0} {2}\n# TYPE snug_model_{0} {1}\n", name, type, help);
    for (const ModelState& m : models)
      text += fmt::format("snug_model_{}{{model={}}} {}\n", name, dump(Json(m.name)), value(m));
  };
  add("weight_bytes", "gauge", "Bytes of a model's weights in memory.", [](const auto& m) { return m.weights; });
  add("kv_bytes", "gauge", "Bytes of its KV cache in memory.", [](const auto& m) { return m.kv; });
  add("switches_total", "counter", "Times that it took its turn after another model.",
      [](const auto& m) { return m.switches; });
}

void metrics(ServedModel& m, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  const SchedulerStats s = stats_with(m);
  const LedgerReport l = m.ledger.report();
  std::string text;
  const auto add = [&text](const char* name, const char* type, const char* help, auto value) {
    text += fmt::format("# HELP snug_{0} {2}\n# TYPE snug_{0} {1}\nsnug_{0} {3}\n", name, type, help, value);
  };
  add("requests_waiting", "gauge", "Requests that wait for memory or a place.", s.waiting);
  add("requests_running", "gauge", "Requests at work.", s.running);
  add("prefixes", "gauge", "Sequences that are kept.", s.prefixes);
  add("requests_finished_total", "counter", "Requests that were answered.", s.finished);
  add("requests_failed_total", "counter", "Requests that failed.", s.failed);
  add("requests_preempted_total", "counter", "Times that a request gave its memory back.", s.preempted);
  add("swap_bytes", "gauge", "Bytes of sequences on the disk.", s.swap_used);
  add("swap_written_bytes_total", "counter", "Bytes that left memory for the disk.", s.swap_written);
  add("swap_read_bytes_total", "counter", "Bytes that came back.", s.swap_read);
  add("prompt_tokens_total", "counter", "Tokens of prompts that were read.", s.prompt_tokens);
  add("cached_tokens_total", "counter", "Tokens of prompts that were there already.", s.cached_tokens);
  add("generated_tokens_total", "counter", "Tokens that were generated.", s.generated_tokens);
  add("busy_seconds_total", "counter", "Time in the model.", s.busy_seconds);
  if (const SharedPrefixes* shared = m.scheduler.shared()) {
    const SharedStats r = shared->stats();
    add("redis_hits_total", "counter", "Requests that found what other replicas had read.", r.hits);
    add("redis_misses_total", "counter", "Requests that asked Redis in vain.", r.misses);
    add("redis_late_total", "counter", "Of them, those for which Redis took too long.", r.late);
    add("redis_refused_total", "counter", "Entries that were damaged, not whole or foreign.", r.refused);
    add("redis_published_total", "counter", "Sequences that were shared.", r.published);
    add("redis_dropped_total", "counter", "Sequences that were not: memory was needed, or newer ones came.", r.dropped);
    add("redis_received_bytes_total", "counter", "Bytes of sequences from Redis.", r.received);
    add("redis_sent_bytes_total", "counter", "Bytes of sequences to Redis.", r.sent);
    add("redis_errors_total", "counter", "Times that Redis did not answer, or refused.", r.errors);
    add("redis_circuit_open", "gauge", "1 while Redis is left alone after an error.", r.open ? 1 : 0);
  }
  if (m.options.energy) {
    const EnergyReport e = m.options.energy->report();
    add("energy_joules_total", "counter", "Estimated energy of the processor while the model was at work.", e.joules);
    if (e.tokens > 0)
      add("joules_per_token", "gauge", "The same, for each token that was generated.", e.joules_per_token());
  }
  add("memory_used_bytes", "gauge", "Bytes in the ledger.", l.used);
  if (l.limit != Ledger::kUnlimited) add("memory_budget_bytes", "gauge", "The budget.", l.limit);
  text += "# HELP snug_memory_bytes Bytes in the ledger, by what they are for.\n# TYPE snug_memory_bytes gauge\n";
  for (std::size_t tag = 0; tag < kTagCount; ++tag)
    text += fmt::format("snug_memory_bytes{{tag=\"{}\"}} {}\n", tag_name(static_cast<Tag>(tag)), l.by_tag[tag]);
  if (m.options.models) add_models(text, m.options.models->states());
  reply->send({.type = "text/plain; version=0.0.4", .body = text});
}

constexpr ApiRoute kRoutes[] = {
    {"GET", "/health", health, openai_error, true},
    {"GET", "/metrics", metrics, openai_error},
    {"GET", "/", page_file, openai_error, true},
    {"GET", "/app.js", page_file, openai_error, true},
    {"GET", "/app.css", page_file, openai_error, true},
    {"GET", "/snug/status", page_status, openai_error},
    {"POST", "/snug/memory", page_memory, openai_error},
    {"GET", "/v1/models", openai_models, openai_error},
    {"POST", "/v1/chat/completions", openai_chat, openai_error},
    {"POST", "/v1/completions", openai_completions, openai_error},
    {"POST", "/v1/responses", openai_responses, openai_error},
    {"POST", "/v1/embeddings", openai_embeddings, openai_error},
    {"POST", "/infill", llama_infill, llama_error},
    {"GET", "/snug/sessions", list_sessions, openai_error},
    {"POST", "/snug/sessions", change_session, openai_error},
    {"POST", "/v1/messages", anthropic_messages, anthropic_error},
    {"POST", "/v1/messages/count_tokens", anthropic_count_tokens, anthropic_error},
    {"GET", "/api/version", ollama_version, ollama_error},
    {"GET", "/api/tags", ollama_tags, ollama_error},
    {"POST", "/api/show", ollama_show, ollama_error},
    {"POST", "/api/chat", ollama_chat, ollama_error},
    {"POST", "/api/generate", ollama_generate, ollama_error},
    {"POST", "/api/embed", ollama_embed, ollama_error},
    {"POST", "/api/embeddings", ollama_embeddings, ollama_error},
};

bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned differ = 0;  // in a time that does not tell where
  for (std::size_t i = 0; i < a.size(); ++i) differ |= static_cast<unsigned char>(a[i] ^ b[i]);
  return differ == 0;
}

bool has_key(const HttpRequest& request, const std::vector<std::string>& keys) {
  const std::string_view given = request.key();
  return keys.empty() ||
         std::any_of(keys.begin(), keys.end(), [&](const std::string& key) { return same(key, given); });
}

const ApiRoute& route_of(const HttpRequest& request) {
  std::string allowed;
  for (const ApiRoute& route : kRoutes) {
    if (route.path != request.path) continue;
    if (route.method == request.method || (route.method == "GET" && request.method == "HEAD")) return route;
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", route.method);
  }
  if (allowed.empty())
    throw ApiError(404, "invalid_request_error", fmt::format("there is no {}", request.path), {}, "unknown_url");
  throw ApiError(405, "invalid_request_error",
                 fmt::format("{} takes {}, not {}", request.path, allowed, request.method));
}

}  // namespace

ServedModel::ServedModel(Model& m, const Ledger& l, Scheduler& s, ApiOptions o)
    : model(m), ledger(l), scheduler(s), options(std::move(o)), created(seconds_now()) {
  const auto size = static_cast<TokenId>(model.tokenizer().size());
  for (TokenId id = 0; id < size; ++id)
    longest_token_ = std::max(longest_token_, model.tokenizer().piece(id, true).size());
}

void ServedModel::check_length(std::size_t bytes) const {
  if (bytes / longest_token_ > scheduler.context())
    throw ContextExceeded(
        fmt::format("the prompt has {} bytes, more than a context of {} tokens holds", bytes, scheduler.context()));
}

std::vector<TokenId> ServedModel::chat_prompt(const Json& messages, const Json& tools,
                                              std::optional<bool> thinking) const {
  std::size_t bytes = 0;
  for (const Json& message : messages)
    if (const auto content = message.find("content"); content != message.end() && content->is_string())
      bytes += content->get_ref<const std::string&>().size();
  check_length(bytes);
  Conversation conversation(model, options.chat_template, {true, !thinking ? -1 : *thinking ? 1 : 0});
  conversation.set_messages(messages);
  if (!tools.is_null()) conversation.set_tools(tools);
  try {
    return conversation.prompt();
  } catch (const Error& e) {
    throw ApiError(400, "invalid_request_error", fmt::format("the model's chat template: {}", e.what()), "messages");
  }
}

std::vector<TokenId> ServedModel::encode(const std::string& text, bool special) const {
  check_length(text.size());
  return model.tokenizer().encode(text, {.add_special = true, .parse_special = special});
}

std::unique_ptr<Constraint> ServedModel::constraint(const std::string& kind, const std::string& grammar) const {
  try {
    std::call_once(grammars_once_, [this] { grammars_ = std::make_unique<Grammars>(model.tokenizer()); });
    return grammars_->constraint(kind, grammar);
  } catch (const Error& e) {
    throw ApiError(400, "invalid_request_error", fmt::format("the grammar: {}", e.what()), "response_format",
                   "invalid_value");
  }
}

Api::Api(ServedModels& models) : models_(models), thread_([this] { run(); }) {}

Api::Api(ServedModel& model) : one_(std::make_unique<OneModel>(model)), models_(*one_), thread_([this] { run(); }) {}

HttpResponse Api::refusal(int status, const std::string& path, const std::string& why) {
  const ApiError error(status, status >= 500 ? "server_error" : "invalid_request_error", why);
  for (const ApiRoute& route : kRoutes)
    if (route.path == path) return route.error(error);
  return openai_error(error);
}

void Api::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    queue_.clear();
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  models_.stop();
}

void Api::handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  add({std::move(request), std::move(reply), nullptr});
}

void Api::add(Call call) {
  call.gone = gone_flag(*call.reply);
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    queue_.push_back(std::move(call));
  }
  wake_.notify_one();
}

void Api::run() {
  while (true) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const Call call = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (!*call.gone) answer(call);
  }
}

ServedModels::Lease Api::model_for(const Call& call, HttpResponse (*shape)(const ApiError&)) {
  if (call.model) return call.model;
  std::string name;  // "": it does not matter
  if (models_.several() && call.request.method == "POST") {
    name = text_in(call.request.body, "model");
    if (name.empty() && call.request.path == "/api/show") name = text_in(call.request.body, "name");
    if (name.empty()) name = models_.usual();
    constexpr std::string_view kLatest = ":latest";  // which Ollama's clients add
    if (!models_.has(name) && name.ends_with(kLatest)) name.resize(name.size() - kLatest.size());
    if (!models_.has(name))
      throw ApiError(404, "invalid_request_error",
                     fmt::format("there is no model \"{}\" here (GET /v1/models lists them)", name), "model",
                     "model_not_found");
  }
  if (ServedModels::Lease model = models_.find(name)) return model;
  if (name.empty()) name = models_.usual();
  models_.load(name, [this, call, shape](ServedModels::Lease model, const std::string& error) {
    if (model)
      add({call.request, call.reply, std::move(model)});
    else
      call.reply->send(shape({503, "server_error", error, "model", "model_not_loaded"}));
  });
  return nullptr;
}

void Api::answer(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
  answer(Call{request, reply, nullptr});
}

void Api::answer(const Call& call) {
  const auto& [request, reply, loaded, gone] = call;
  log(LogLevel::info, "{} {}", request.method, request.path);
  auto shape = openai_error;
  try {
    const ApiRoute& route = route_of(request);
    shape = route.error;
    if (!route.open && !has_key(request, models_.keys()))
      throw ApiError(401, "authentication_error", "the API key is missing or wrong", {}, "invalid_api_key");
    const ServedModels::Lease model = model_for(call, shape);
    if (!model) return;
    // Whoever answers holds the reply, and with it the model.
    struct Held {
      std::shared_ptr<HttpReply> reply;
      ServedModels::Lease model;
    };
    const auto held = std::make_shared<Held>(Held{reply, model});
    route.handler(*model, request, {held, reply.get()});
  } catch (const ApiError& e) {
    reply->send(shape(e));
  } catch (const ContextExceeded& e) {
    reply->send(shape({400, "invalid_request_error", e.what(), "messages", "context_length_exceeded"}));
  } catch (const TooManyRequests& e) {
    reply->send(shape({429, "rate_limit_error", e.what(), {}, "rate_limit_exceeded"}));
  } catch (const std::exception& e) {
    log(LogLevel::error, "{} {}: {}", request.method, request.path, e.what());
    reply->send(shape({500, "server_error", e.what()}));
  }
}

}  // namespace snug
