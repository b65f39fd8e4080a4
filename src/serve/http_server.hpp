#pragma once
/// An HTTP/1.1 server on one thread (Boost.Beast).

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/units.hpp"
#include "serve/http.hpp"

namespace snug {

struct HttpLimits {
  Bytes header = 16 * kKiB, body = 32 * kMiB;
  Bytes bodies = 256 * kMiB;               ///< all that are being read or wait to be, however many send them
  Bytes unread = 4 * kMiB;                 ///< of an answer that waits for a slow reader; then it is given up
  std::chrono::milliseconds idle{60'000};  ///< without a whole header, also between two requests
  std::chrono::milliseconds body_time{60'000};
  std::chrono::milliseconds write_time{60'000};  ///< without the client taking anything
};

class HttpServer {
public:
  /// Listens on `host`:`port` (0: any free one). Throws IoError: not an address, in use.
  /// `refusal`: what a client is told whose request did not come whole.
  HttpServer(const std::string& host, std::uint16_t port, HttpHandler handler, HttpLimits limits = {},
             HttpRefusal refusal = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::uint16_t port() const;
  /// Connections that are open.
  std::size_t connections() const;
  /// Takes no more connections or requests, and waits until those that came are answered, at most so long.
  void drain(std::chrono::milliseconds most);

private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace snug
