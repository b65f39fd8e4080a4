#include "serve/shared_responses.hpp"

#include <openssl/sha.h>

namespace snug {

namespace {

/// Of 8 MiB at most each; more are not sent.
constexpr std::size_t kMostOnTheirWay = 8;
constexpr std::size_t kLongestId = 128;

std::string digest_of(const std::string& owner) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(owner.data()), owner.size(), digest);
  return {reinterpret_cast<const char*>(digest), sizeof digest};
}

}  // namespace

SharedResponses::SharedResponses(std::unique_ptr<RedisLink> link, std::string prefix, std::chrono::seconds ttl)
    : link_(std::move(link)), prefix_(std::move(prefix)), ttl_(std::to_string(ttl.count())) {}

SharedResponses::~SharedResponses() {
  link_->interrupt();
  worker_.stop();
}

void SharedResponses::put(const std::string& id, const std::string& owner, std::string conversation) {
  if (link_->open_circuit()) return;
  if (on_their_way_++ >= kMostOnTheirWay) {
    --on_their_way_;
    return;
  }
  worker_.add([this, name = key(id), value = digest_of(owner) + std::move(conversation)] {
    const std::lock_guard lock(mutex_);
    link_->run({{"SET", name, value, "EX", ttl_}});
    --on_their_way_;
  });
}

std::optional<std::string> SharedResponses::get(const std::string& id, const std::string& owner) {
  if (id.size() > kLongestId || link_->open_circuit()) return {};
  const std::lock_guard lock(mutex_);
  const auto replies = link_->run({{"GET", key(id)}});
  if (!replies || replies->front().kind != RedisReply::Kind::text) return {};
  const std::string& value = replies->front().text;
  const std::string digest = digest_of(owner);
  return value.starts_with(digest) ? std::optional(value.substr(digest.size())) : std::nullopt;
}

}  // namespace snug
