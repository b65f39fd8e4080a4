#include "serve/response_store.hpp"

namespace snug {

void ResponseStore::put(const std::string& id, const std::string& owner, std::string conversation) {
  Entry entry{id, owner, std::move(conversation)};
  const std::lock_guard lock(mutex_);
  if (entry.bytes() > most_bytes_ || by_id_.contains(id)) return;
  bytes_ += entry.bytes();
  entries_.push_front(std::move(entry));
  by_id_[id] = entries_.begin();
  while (entries_.size() > most_ || bytes_ > most_bytes_) {
    bytes_ -= entries_.back().bytes();
    by_id_.erase(entries_.back().id);
    entries_.pop_back();
  }
}

std::optional<std::string> ResponseStore::get(const std::string& id, const std::string& owner) {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->owner != owner) return {};
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->conversation;
}

std::size_t ResponseStore::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace snug
