#include "serve/turns.hpp"

#include <algorithm>

namespace snug {

bool Turns::next(const Waiting& waiting) const {
  if (busy_) return false;
  const auto first = [this](auto&& is) {
    const auto found = std::find_if(waiting_.begin(), waiting_.end(), is);
    return found == waiting_.end() ? nullptr : *found;
  };
  const Waiting* best = first([](const Waiting* w) { return !w->computes; });
  if (!best) best = first([this](const Waiting* w) { return !turn_ || w->who == *turn_; });
  return best == &waiting;
}

void Turns::begin(std::size_t who, bool computes) {
  const Waiting own{who, computes};
  std::unique_lock lock(mutex_);
  waiting_.push_back(&own);
  changed_.wait(lock, [&] { return next(own); });
  std::erase(waiting_, &own);
  busy_ = true;
  at_work_ = own;
  if (!computes || turn_ == who) return;
  turn_ = who;
  began_ = Clock::now();
}

void Turns::end(bool more) {
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
    const auto other = [this](const Waiting* w) { return w->computes && w->who != turn_; };
    const bool over = Clock::now() - began_ >= length_ && std::any_of(waiting_.begin(), waiting_.end(), other);
    if ((at_work_.computes || at_work_.who == turn_) && (!more || over)) turn_.reset();
  }
  changed_.notify_all();
}

void Turns::set_length(Clock::duration length) {
  const std::lock_guard lock(mutex_);
  length_ = length;
}

bool Turns::wants(std::size_t who) const {
  const std::lock_guard lock(mutex_);
  return turn_ == who || std::any_of(waiting_.begin(), waiting_.end(),
                                     [who](const Waiting* w) { return w->who == who && w->computes; });
}

}  // namespace snug
