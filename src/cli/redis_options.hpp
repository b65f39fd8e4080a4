#pragma once
/// The options of `snug serve` that let replicas share what they have read.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "serve/shared_prefixes.hpp"
#include "serve/shared_responses.hpp"

namespace snug {

struct RedisOptions {
  std::string address, password, prefix = "snug", most = "4GiB";
  std::size_t wait_ms = 300, ttl_seconds = 3600;
};

void add_redis_options(CLI::App& command, RedisOptions& options);
/// What replicas share, each over a connection of its own; null: no Redis is named. Neither connects yet. Throw
/// UsageError.
std::shared_ptr<SharedPrefixes> shared_prefixes(const RedisOptions& options);
std::shared_ptr<SharedResponses> shared_responses(const RedisOptions& options);

}  // namespace snug
