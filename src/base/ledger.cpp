#include "base/ledger.hpp"

#include <algorithm>
#include <utility>

namespace snug {

namespace {
constexpr Bytes kPage = 4096;
}

std::string_view tag_name(Tag tag) {
  static constexpr std::array<std::string_view, kTagCount> kNames{"weights",   "kv",         "activations", "scratch",
                                                                  "tokenizer", "page_cache", "runtime"};
  return kNames[static_cast<std::size_t>(tag)];
}

OutOfBudget::OutOfBudget(Bytes asked_, Tag tag_, Bytes used_, Bytes limit_)
    : Error(fmt::format("{} more for {} does not fit: {} of {} are in use: raise --memory or lower -c",
                        format_bytes(asked_), tag_name(tag_), format_bytes(used_), format_bytes(limit_))),
      asked(asked_),
      used(used_),
      limit(limit_),
      tag(tag_) {}

Reservation::Reservation(Reservation&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)), tag_(other.tag_), bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    release();
    ledger_ = std::exchange(other.ledger_, nullptr);
    tag_ = other.tag_;
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void Reservation::resize(Bytes bytes) {
  bytes = round_up(bytes, kPage);
  if (bytes > bytes_) {
    ledger_->charge(tag_, bytes - bytes_);
  } else {
    ledger_->release(tag_, bytes_ - bytes);
  }
  bytes_ = bytes;
}

void Reservation::release() noexcept {
  if (ledger_) ledger_->release(tag_, bytes_);
  ledger_ = nullptr;
  bytes_ = 0;
}

Ledger::Ledger(Bytes limit) : limit_(limit) {}

Reservation Ledger::reserve(Tag tag, Bytes bytes) {
  bytes = round_up(checked_add(bytes, kPage - 1) - (kPage - 1), kPage);
  charge(tag, bytes);
  Reservation reservation;
  reservation.ledger_ = this;
  reservation.tag_ = tag;
  reservation.bytes_ = bytes;
  return reservation;
}

bool Ledger::try_charge(Tag tag, Bytes bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes > limit_ || used_ > limit_ - bytes) return false;
  by_tag_[static_cast<std::size_t>(tag)] += bytes;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return true;
}

void Ledger::charge(Tag tag, Bytes bytes) {
  if (try_charge(tag, bytes)) return;
  std::vector<std::pair<double, std::shared_ptr<Holder>>> holders;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& weak : holders_)
      if (auto holder = weak.lock()) holders.emplace_back(0.0, std::move(holder));
  }
  for (auto& [regret, holder] : holders) regret = holder->regret();
  std::stable_sort(holders.begin(), holders.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [regret, holder] : holders) {
    holder->give_back(bytes);
    if (try_charge(tag, bytes)) return;
  }
  const LedgerReport now = report();
  throw OutOfBudget(bytes, tag, now.used, now.limit);
}

void Ledger::release(Tag tag, Bytes bytes) noexcept {
  const std::lock_guard lock(mutex_);
  by_tag_[static_cast<std::size_t>(tag)] -= bytes;
  used_ -= bytes;
}

std::shared_ptr<void> Ledger::add_holder(Holder holder) {
  auto shared = std::make_shared<Holder>(std::move(holder));
  const std::lock_guard lock(mutex_);
  std::erase_if(holders_, [](const auto& weak) { return weak.expired(); });
  holders_.push_back(shared);
  return shared;
}

void Ledger::set_limit(Bytes limit) {
  const std::lock_guard lock(mutex_);
  limit_ = limit;
}

LedgerReport Ledger::report() const {
  const std::lock_guard lock(mutex_);
  return {by_tag_, used_, peak_, limit_};
}

}  // namespace snug
