#pragma once
/// Responses that another replica is to go on from, in Redis: PREFIX:r:ID has a digest of whose it is (SHA-256 of its
/// key, which is not written itself) and the conversation.

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "serve/redis_client.hpp"
#include "serve/worker.hpp"

namespace snug {

/// Thread-safe.
class SharedResponses {
public:
  SharedResponses(std::unique_ptr<RedisLink> link, std::string prefix, std::chrono::seconds ttl);
  ~SharedResponses();
  SharedResponses(const SharedResponses&) = delete;
  SharedResponses& operator=(const SharedResponses&) = delete;

  /// Sends it, soon; it may get lost.
  void put(const std::string& id, const std::string& owner, std::string conversation);
  /// None: Redis does not have it, does not answer, or it is somebody else's. Waits as long as the link does.
  std::optional<std::string> get(const std::string& id, const std::string& owner);

private:
  std::string key(const std::string& id) const { return prefix_ + ":r:" + id; }

  std::mutex mutex_;  ///< of the link
  std::unique_ptr<RedisLink> link_;
  std::string prefix_, ttl_;
  std::atomic<std::size_t> on_their_way_{0};
  Worker worker_;
};

}  // namespace snug
