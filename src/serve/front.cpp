#include "serve/front.hpp"

#include <fmt/chrono.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace snug {

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

/// One request, as it will stand in the log. Written to from the server's thread and from those that answer.
struct Record {
  std::mutex mutex;
  std::string method, path;
  Clock::time_point start = Clock::now();
  std::optional<Clock::time_point> first_token;
  int status = 0;
  std::size_t bytes = 0;
  ReplyTokens tokens;
  bool left = false;

  std::string line() {
    const std::lock_guard lock(mutex);
    const auto since = [this](Clock::time_point t) { return std::chrono::duration<double>(t - start).count(); };
    const auto now = std::chrono::system_clock::now();
    const auto part = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
    Json json = {{"time", fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                                      fmt::gmtime(std::chrono::system_clock::to_time_t(now)), part)},
                 {"method", method},
                 {"path", path},
                 {"status", status},
                 {"seconds", since(Clock::now())},
                 {"bytes", bytes}};
    if (first_token) json["first_token_seconds"] = since(*first_token);
    if (tokens.prompt > 0) {
      json["prompt_tokens"] = tokens.prompt;
      json["cached_tokens"] = tokens.cached;
      json["generated_tokens"] = tokens.generated;
    }
    if (left) json["left"] = true;
    return json.dump(-1, ' ', true, Json::error_handler_t::replace);
  }
};

}  // namespace

/// A reply with further headers, of which a record is kept. Its end is the request's.
class Front::Watched final : public HttpReply {
public:
  Watched(Front& front, std::shared_ptr<HttpReply> inner, std::shared_ptr<Record> record, HttpHeaders headers)
      : front_(front), inner_(std::move(inner)), record_(std::move(record)), headers_(std::move(headers)) {}
  ~Watched() override {
    if (!begun_) send(front_.options_.refusal(500, record_->path, "no answer"));
    inner_ = nullptr;
    if (front_.options_.log) front_.options_.log(record_->line());
    const std::lock_guard lock(front_.mutex_);
    --front_.answering_;
    front_.answered_.notify_all();
  }
  void send(HttpResponse response) override {
    begun(response.status, response.body.size());
    add_headers(response.headers);
    inner_->send(std::move(response));
  }
  void begin(std::string_view type, HttpHeaders headers) override {
    begun(200, 0);
    add_headers(headers);
    inner_->begin(type, std::move(headers));
  }
  void write(std::string text) override {
    {
      const std::lock_guard lock(record_->mutex);
      record_->bytes += text.size();
    }
    inner_->write(std::move(text));
  }
  void end() override { inner_->end(); }
  void on_gone(std::function<void()> f) override {
    inner_->on_gone([f = std::move(f), record = record_] {
      {
        const std::lock_guard lock(record->mutex);
        record->left = true;
      }
      f();
    });
  }
  void note_tokens(const ReplyTokens& more) override {
    const std::lock_guard lock(record_->mutex);
    if (!record_->first_token) record_->first_token = Clock::now();
    record_->tokens.prompt += more.prompt;
    record_->tokens.cached += more.cached;
    record_->tokens.generated += more.generated;
  }

private:
  void begun(int status, std::size_t bytes) {
    begun_ = true;
    const std::lock_guard lock(record_->mutex);
    record_->status = status;
    record_->bytes += bytes;
  }
  void add_headers(HttpHeaders& headers) const { headers.insert(headers.end(), headers_.begin(), headers_.end()); }

  Front& front_;
  std::shared_ptr<HttpReply> inner_;
  std::shared_ptr<Record> record_;
  HttpHeaders headers_;
  bool begun_ = false;
};

void Front::handle(HttpRequest request, std::shared_ptr<HttpReply> inner) {
  const auto record = std::make_shared<Record>();
  record->method = request.method, record->path = request.path;
  HttpHeaders headers;
  const std::string origin(request.header("origin"));
  const auto allows = [&](const std::string& o) { return o == "*" || o == origin; };
  const bool allowed = !origin.empty() && std::any_of(options_.origins.begin(), options_.origins.end(), allows);
  if (allowed) headers = {{"Access-Control-Allow-Origin", origin}, {"Vary", "Origin"}};
  {
    const std::lock_guard lock(mutex_);
    ++answering_;
  }
  const auto reply = std::make_shared<Watched>(*this, std::move(inner), record, std::move(headers));
  // A browser asks before it sends anything else, without a key.
  if (request.method == "OPTIONS" && allowed && !request.header("access-control-request-method").empty()) {
    std::string wanted(request.header("access-control-request-headers"));
    if (wanted.empty()) wanted = "authorization, content-type";
    return reply->send({.type = "text/plain",
                        .body = {},
                        .headers = {{"Access-Control-Allow-Methods", "GET, POST"},
                                    {"Access-Control-Allow-Headers", std::move(wanted)},
                                    {"Access-Control-Max-Age", "600"}}});
  }
  const State state = state_;
  if (request.path == "/ready" && (request.method == "GET" || request.method == "HEAD")) {
    if (state == State::ready) return reply->send({.body = R"({"status":"ready"})"});
    return reply->send(
        {503, "application/json", state == State::loading ? R"({"status":"loading"})" : R"({"status":"draining"})"});
  }
  if (state == State::ready) return next_(std::move(request), reply);
  if (request.path == "/health") return reply->send({.body = R"({"status":"ok"})"});
  HttpResponse refused =
      options_.refusal(503, request.path, state == State::loading ? "the model is loaded" : "the server ends");
  refused.headers.emplace_back("Retry-After", "5");
  reply->send(std::move(refused));
}

void Front::open(HttpHandler next) {
  next_ = std::move(next);
  state_ = State::ready;
}

void Front::drain(std::chrono::milliseconds most) {
  state_ = State::draining;
  std::unique_lock lock(mutex_);
  answered_.wait_for(lock, most, [this] { return answering_ == 0; });
}

}  // namespace snug
