#pragma once
/// A connection to Redis (hiredis) that never makes anybody wait for long: whatever goes wrong, Redis is left alone for
/// a few seconds, and all that is asked meanwhile fails at once.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/units.hpp"

struct redisContext;

namespace snug {

struct RedisAddress {
  std::string host, path;  ///< one of them: TCP, or a Unix socket
  std::uint16_t port = 6379;
  std::string user, password;
  unsigned database = 0;

  /// Without the password.
  std::string name() const;
};

/// `HOST[:PORT]`, `[IPV6]:PORT`, `/PATH`, `unix:/PATH` or `redis://[USER][:PASSWORD@]HOST[:PORT][/DATABASE]`. Throws
/// UsageError, which does not repeat a password.
RedisAddress parse_redis_address(const std::string& text);

struct RedisReply {
  enum class Kind { nil, text, integer, error, list };
  Kind kind = Kind::nil;
  std::string text;  ///< bytes; of an error: what Redis says
  std::int64_t integer = 0;
  std::vector<RedisReply> list;
};
/// A command and its arguments, which may be any bytes.
using RedisCommand = std::vector<std::string>;

/// What the rest needs of Redis, so that tests can have another. Used by one thread.
class RedisLink {
public:
  virtual ~RedisLink() = default;
  /// Sends the commands together. Returns a reply to each, in order; none: Redis did not answer (error() says why).
  virtual std::optional<std::vector<RedisReply>> run(const std::vector<RedisCommand>& commands) = 0;
  virtual std::string error() const = 0;
  virtual std::string name() const = 0;
  /// It is left alone now. Thread-safe.
  virtual bool open_circuit() const = 0;
  /// run() returns soon, now and from now on. Thread-safe.
  virtual void interrupt() = 0;
};

class RedisClient final : public RedisLink {
public:
  /// `timeout`: for connecting, and for all replies to one run().
  RedisClient(RedisAddress address, std::chrono::milliseconds timeout);
  ~RedisClient() override;
  std::optional<std::vector<RedisReply>> run(const std::vector<RedisCommand>& commands) override;
  std::string error() const override { return error_; }
  std::string name() const override { return address_.name(); }
  bool open_circuit() const override { return Clock::now().time_since_epoch().count() < closed_until_; }
  void interrupt() override { interrupted_ = true; }

private:
  using Clock = std::chrono::steady_clock;
  void connect();
  /// Throws IoError.
  std::vector<RedisReply> exchange(const std::vector<RedisCommand>& commands, Clock::time_point deadline);
  void wait_for(short events, Clock::time_point deadline);
  void disconnect() noexcept;

  RedisAddress address_;
  std::chrono::milliseconds timeout_, pause_;
  redisContext* context_ = nullptr;
  std::string error_;
  std::atomic<Clock::rep> closed_until_{0};
  std::atomic<bool> interrupted_{false};
};

}  // namespace snug
