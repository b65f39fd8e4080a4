#pragma once
/// HTTP as the APIs see it: a request that has come whole, and an answer that may be given from any thread.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace snug {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method, path, query, body;
  HttpHeaders headers;           ///< names in lower case
  std::shared_ptr<void> room{};  ///< holds the body's place in HttpLimits::bodies

  /// "" when it is not there.
  std::string_view header(std::string_view name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }
  /// The key that it names: a bearer token, or x-api-key.
  std::string_view key() const {
    constexpr std::string_view kBearer = "Bearer ";
    const std::string_view given = header("authorization");
    return given.starts_with(kBearer) ? given.substr(kBearer.size()) : header("x-api-key");
  }
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json", body;
  HttpHeaders headers{};
};

/// What an answer took, for whoever keeps a record.
struct ReplyTokens {
  std::size_t prompt = 0, cached = 0, generated = 0;
};

/// Where one request is answered: send(), or begin(), any number of write(), end(). Thread-safe; what comes after the
/// client has left is dropped. Without an answer when it is destroyed, the client gets a 500.
class HttpReply {
public:
  virtual ~HttpReply() = default;
  virtual void send(HttpResponse response) = 0;
  virtual void begin(std::string_view type, HttpHeaders headers = {}) = 0;
  virtual void write(std::string text) = 0;
  virtual void end() = 0;
  /// f is called once, on the server's thread, when the client leaves before it was answered, or reads so slowly that
  /// it is given up. It is let go when the answer ends.
  virtual void on_gone(std::function<void()> f) = 0;
  /// Adds to what the answer took; nothing at all says that its first token is there.
  virtual void note_tokens(const ReplyTokens&) {}
};

/// What becomes true when the client leaves, until another on_gone() takes the place of this one.
inline std::shared_ptr<const std::atomic<bool>> gone_flag(HttpReply& reply) {
  auto gone = std::make_shared<std::atomic<bool>>(false);
  reply.on_gone([gone] { *gone = true; });
  return gone;
}

/// An answer to a request that is too large, or not HTTP, of which no more than the path is known (or not even that).
using HttpRefusal = std::function<HttpResponse(int status, const std::string& path, const std::string& why)>;

/// Called on the server's thread: must not block, nor throw.
using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<HttpReply> reply)>;

}  // namespace snug
