#pragma once
/// Responses that later ones may go on from (previous_response_id): in memory, the last ones, of bounded size.

#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/units.hpp"
#include "serve/shared_responses.hpp"

namespace snug {

/// Thread-safe.
class ResponseStore {
public:
  explicit ResponseStore(std::size_t most = 512, Bytes most_bytes = 8 * kMiB) : most_(most), most_bytes_(most_bytes) {}

  /// Keeps a conversation for `owner`, who alone gets it again. Those used least recently go; one that is too large by
  /// itself is not kept.
  void put(const std::string& id, const std::string& owner, std::string conversation);
  std::optional<std::string> get(const std::string& id, const std::string& owner);
  std::size_t size() const;
  /// Other replicas get them, too, and theirs are found. Before the first put().
  void share(std::shared_ptr<SharedResponses> shared) { shared_ = std::move(shared); }

private:
  struct Entry {
    std::string id, owner, conversation;
    Bytes bytes() const { return sizeof(Entry) + id.size() + owner.size() + conversation.size(); }
  };
  void keep(Entry entry);

  std::shared_ptr<SharedResponses> shared_;
  const std::size_t most_;
  const Bytes most_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  ///< the one used last comes first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_id_;
  Bytes bytes_ = 0;
};

}  // namespace snug
