#pragma once
/// What stands before the APIs, whatever they are: whether the server is ready, who may ask from a web page of another
/// origin, and a line for each request that was answered.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "serve/http.hpp"

namespace snug {

struct FrontOptions {
  std::vector<std::string> origins{};  ///< whose pages may ask (CORS); "*": all; none: none but our own
  /// Takes a line of JSON for each request: times, sizes, tokens, nothing of what was said. On any thread.
  std::function<void(const std::string& line)> log{};
  HttpRefusal refusal;  ///< what clients get that come too early or too late, or whom nobody answers
};

/// GET /ready answers 503 until open() and from drain() on; GET /health is for the APIs once there are some.
class Front {
public:
  explicit Front(FrontOptions options) : options_(std::move(options)) {}

  /// The HttpHandler.
  void handle(HttpRequest request, std::shared_ptr<HttpReply> reply);
  /// From now on requests go to `next`.
  void open(HttpHandler next);
  /// New requests are turned away; waits until the others are answered, at most so long.
  void drain(std::chrono::milliseconds most);

private:
  class Watched;
  enum class State { loading, ready, draining };

  FrontOptions options_;
  std::atomic<State> state_{State::loading};
  HttpHandler next_;  ///< set before state_ is ready
  std::mutex mutex_;
  std::condition_variable answered_;
  std::size_t answering_ = 0;
};

}  // namespace snug
