#pragma once
/// The one account of memory. Everything large is reserved here before it is allocated; a reservation is released by
/// its destructor. Committed, page-rounded bytes are charged.

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/units.hpp"

namespace snug {

enum class Tag : std::uint8_t { weights, kv, activations, scratch, tokenizer, page_cache, runtime };
inline constexpr std::size_t kTagCount = 7;
std::string_view tag_name(Tag tag);

/// The budget cannot hold what was asked, even after every holder gave back what it could.
class OutOfBudget : public Error {
public:
  OutOfBudget(Bytes asked, Tag tag, Bytes used, Bytes limit);
  Bytes asked, used, limit;
  Tag tag;
};

class Ledger;

/// Bytes held under one tag; move-only; gives them back on destruction.
class Reservation {
public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation() { release(); }

  Bytes bytes() const { return bytes_; }
  Tag tag() const { return tag_; }
  /// Grows (may throw OutOfBudget, leaving the reservation as it was) or shrinks (never throws) to `bytes`.
  void resize(Bytes bytes);
  void release() noexcept;

private:
  friend class Ledger;
  Ledger* ledger_ = nullptr;
  Tag tag_ = Tag::scratch;
  Bytes bytes_ = 0;
};

/// Somebody who holds bytes that can be given back (a cache). `regret` orders holders: least regret is asked first.
/// Callbacks run without the ledger's lock and must not reserve.
struct Holder {
  std::function<double()> regret;
  std::function<Bytes(Bytes wanted)> give_back;  ///< returns how many bytes were really released
};

struct LedgerReport {
  std::array<Bytes, kTagCount> by_tag{};
  Bytes used = 0, peak = 0, limit = 0;
};

/// Thread-safe.
class Ledger {
public:
  static constexpr Bytes kUnlimited = ~Bytes{0};
  explicit Ledger(Bytes limit = kUnlimited);

  /// Charges `bytes` (rounded up to whole pages), asking holders to give back when full; throws OutOfBudget.
  Reservation reserve(Tag tag, Bytes bytes);

  /// Registers a holder until the returned handle is destroyed.
  std::shared_ptr<void> add_holder(Holder holder);

  void set_limit(Bytes limit);
  LedgerReport report() const;

private:
  friend class Reservation;
  bool try_charge(Tag tag, Bytes bytes);
  void charge(Tag tag, Bytes bytes);
  void release(Tag tag, Bytes bytes) noexcept;

  mutable std::mutex mutex_;
  std::array<Bytes, kTagCount> by_tag_{};
  Bytes used_ = 0, peak_ = 0, limit_;
  std::vector<std::weak_ptr<Holder>> holders_;
};

}  // namespace snug
