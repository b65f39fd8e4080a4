#include "serve/response_store.hpp"

namespace snug {

void ResponseStore::put(const std::string& id, const std::string& owner, std::string conversation) {
  if (shared_) shared_->put(id, owner, conversation);
  keep({id, owner, std::move(conversation)});
}

void ResponseStore::keep(Entry entry) {
  const std::string id = entry.id;
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
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = by_id_.find(id); found != by_id_.end()) {
      if (found->second->owner != owner) return {};
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->conversation;
    }
  }
  auto theirs = shared_ ? shared_->get(id, owner) : std::nullopt;
  if (theirs) keep({id, owner, *theirs});
  return theirs;
}

std::size_t ResponseStore::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace snug
