#pragma once
/// HTTP as the APIs see it: a request that has come whole, and an answer that may be given from any thread.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace snug {

struct HttpRequest {
  std::string method, path, query, body;
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case
  std::shared_ptr<void> room;                                ///< holds the body's place in HttpLimits::bodies

  /// "" when it is not there.
  std::string_view header(std::string_view name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json", body;
  std::vector<std::pair<std::string, std::string>> headers{};
};

/// Where one request is answered: send(), or begin(), any number of write(), end(). Thread-safe; what comes after the
/// client has left is dropped. Without an answer when it is destroyed, the client gets a 500.
class HttpReply {
public:
  virtual ~HttpReply() = default;
  virtual void send(HttpResponse response) = 0;
  virtual void begin(std::string_view type) = 0;
  virtual void write(std::string text) = 0;
  virtual void end() = 0;
  /// Called once, on the server's thread, when the client leaves before it was answered, or reads so slowly that it is
  /// given up.
  virtual void on_gone(std::function<void()> f) = 0;
};

/// Called on the server's thread: must not block, nor throw.
using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<HttpReply> reply)>;

}  // namespace snug
