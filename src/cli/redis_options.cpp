#include "cli/redis_options.hpp"

#include "base/error.hpp"
#include "cli/engine.hpp"

namespace snug {

namespace {

/// Shorter ones would take a busy Redis for a dead one.
constexpr std::chrono::milliseconds kLeastTimeout{100};

std::unique_ptr<RedisLink> client_of(const RedisOptions& o) {
  RedisAddress address = parse_redis_address(o.address);
  if (!o.password.empty()) address.password = o.password;
  return std::make_unique<RedisClient>(std::move(address),
                                       std::max(std::chrono::milliseconds(o.wait_ms), kLeastTimeout));
}

}  // namespace

void add_redis_options(CLI::App& command, RedisOptions& o) {
  add_option(command, "--redis", o.address,
             "Redis through which replicas share what they have read: HOST[:PORT], a socket's /PATH, or "
             "redis://[USER][:PASSWORD@]HOST[:PORT][/DATABASE]");
  add_option(command, "--redis-password", o.password, "its password (better in SNUG_REDIS_PASSWORD)");
  add_option(command, "--redis-prefix", o.prefix, "what its keys begin with")->capture_default_str();
  add_option(command, "--redis-max", o.most, "most bytes of it; what was used longest ago goes first")
      ->capture_default_str();
  add_option(command, "--redis-ttl", o.ttl_seconds, "seconds after which it forgets what nobody has used")
      ->check(CLI::Range(1, 30 * 86400))
      ->capture_default_str();
  add_option(command, "--redis-wait", o.wait_ms,
             "milliseconds that a request waits to hear what it has, and then, with 10 ms for each MB, for that")
      ->check(CLI::Range(1, 60000))
      ->capture_default_str();
}

std::shared_ptr<SharedPrefixes> shared_prefixes(const RedisOptions& o) {
  if (o.address.empty()) return nullptr;
  SharedOptions options;
  options.limits.prefix = o.prefix;
  options.limits.ttl = std::chrono::seconds(o.ttl_seconds);
  options.limits.most = parse_size(o.most, 0);
  options.wait = std::chrono::milliseconds(o.wait_ms);
  options.tell = [](const std::string& what) { fmt::print(stderr, "note: {}\n", what); };
  return std::make_shared<SharedPrefixes>(client_of(o), std::move(options));
}

std::shared_ptr<SharedResponses> shared_responses(const RedisOptions& o) {
  if (o.address.empty()) return nullptr;
  return std::make_shared<SharedResponses>(client_of(o), o.prefix, std::chrono::seconds(o.ttl_seconds));
}

}  // namespace snug
