#include "weights/read_ahead.hpp"

#include <algorithm>
#include <cassert>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr unsigned kDepth = 32;
/// What comes within so many extents is on its way.
constexpr std::size_t kSoon = 64;

}  // namespace

ReadAhead::ReadAhead(Ledger& ledger, std::size_t slots, std::size_t most_bytes, Tag tag)
    : memory_(ledger, tag, slots * Range::blocks_bytes(most_bytes)), slots_(slots) {
  for (std::size_t i = 0; i < slots; ++i) slots_[i].memory = memory_.data() + i * Range::blocks_bytes(most_bytes);
  thread_ = std::thread([this] { follow(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

/// The thread. When reading ahead itself fails, whoever waits hears of it, and everybody reads for himself from then
/// on.
void ReadAhead::follow() {
  std::unique_lock lock(mutex_, std::defer_lock);
  try {
    const auto reader = AsyncReader::create(kDepth);
    lock.lock();
    keep_reading(*reader, lock);
    lock.unlock();
    while (reader->in_flight() > 0) reader->wait();
  } catch (const std::exception& e) {
    if (!lock.owns_lock()) lock.lock();
    for (Slot& slot : slots_) {
      if (slot.state != State::reading || !slot.ahead) continue;
      slot.state = State::lost;
      slot.error = e.what();
    }
    changed_.notify_all();
  }
}

void ReadAhead::keep_reading(AsyncReader& reader, std::unique_lock<std::mutex>& lock) {
  while (!stop_) {
    for (std::size_t i = 0; i < slots_.size() && reader.in_flight() < kDepth && start_next(reader);) ++i;
    if (reader.in_flight() == 0) {
      changed_.wait(lock);
      continue;
    }
    lock.unlock();
    const std::vector<ReadResult> results = reader.wait();
    lock.lock();
    for (const ReadResult& result : results) {
      slots_[result.tag].state = State::ready;
      slots_[result.tag].error = result.error;
    }
    changed_.notify_all();
  }
}

void ReadAhead::expect(const std::vector<Range>& order) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 1; i < order.size(); ++i) expected_[key(order[i - 1])] = order[i];
}

const FileRange* ReadAhead::after(const Key& extent) const {
  for (const auto* order : {&successor_, &expected_})
    if (const auto next = order->find(extent); next != order->end()) return &next->second;
  return nullptr;
}

bool ReadAhead::start_next(AsyncReader& reader) {
  const Range* next = after(ahead_);
  if (!next) return false;
  const Range& extent = *next;
  if (early_.erase(key(extent)) > 0) {
    ahead_ = key(extent);
    return true;
  }
  if (present_.contains(key(extent))) {  // read out of order before
    if (key(extent) == last_) return false;
    ahead_ = key(extent);
    return true;
  }
  // Some slots are left to those who ask for what is not there.
  const auto is_free = [](const Slot& s) { return s.state == State::free; };
  const auto free = static_cast<std::size_t>(std::count_if(slots_.begin(), slots_.end(), is_free));
  if (free <= slots_.size() / 8) return false;
  const auto slot = std::find_if(slots_.begin(), slots_.end(), is_free);
  ahead_ = key(extent);
  const auto index = static_cast<std::size_t>(slot - slots_.begin());
  claim(index, extent, true);
  const Range wide = extent.whole_blocks();
  reader.submit({wide.file, wide.offset, std::span(slot->memory, wide.size), index});
  return true;
}

void ReadAhead::claim(std::size_t index, const Range& extent, bool ahead) {
  Slot& slot = slots_[index];
  stats_.bytes_read += extent.whole_blocks().size;
  ++stats_.reads;
  if (!ahead) ++stats_.late;
  slot.state = State::reading;
  slot.ahead = ahead;
  slot.extent = extent;
  slot.users = slot.asked = 0;
  slot.error.clear();
  present_[key(extent)] = index;
}

void ReadAhead::forget(std::size_t index) {
  const auto found = present_.find(key(slots_[index].extent));
  if (found != present_.end() && found->second == index) present_.erase(found);
}

void ReadAhead::drop(std::size_t index) {
  forget(index);
  slots_[index].state = State::free;
}

bool ReadAhead::is_soon(const Range& extent) const {
  Key at = ahead_;
  for (std::size_t i = 0; i < kSoon; ++i) {
    const Range* next = after(at);
    if (!next) return false;
    at = key(*next);
    if (at == key(extent)) return true;
  }
  return false;
}

std::size_t ReadAhead::take_free(std::unique_lock<std::mutex>& lock) {
  for (;;) {
    // What nobody uses goes: first what was read and never asked for, then what was left half-way.
    for (const bool begun : {false, true})
      for (std::size_t i = 0; i < slots_.size(); ++i) {
        Slot& slot = slots_[i];
        if (slot.state == State::ready && slot.users == 0 && (slot.asked > 0) == begun) drop(i);
        if (slot.state == State::free) return i;
      }
    if (std::all_of(slots_.begin(), slots_.end(), [](const Slot& s) { return s.state == State::lost; }))
      fail<IoError>("{}", slots_.front().error);
    changed_.wait(lock);
  }
}

std::size_t ReadAhead::read_now(const Range& extent, std::unique_lock<std::mutex>& lock) {
  if (is_soon(extent)) {
    early_.insert(key(extent));
  } else {
    // What was read ahead was not what is wanted: begin again from here.
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].state == State::ready && slots_[i].users == 0 && slots_[i].asked == 0) drop(i);
    ahead_ = key(extent);
    early_.clear();
    ++stats_.restarts;
  }
  const std::size_t index = take_free(lock);
  if (const auto found = present_.find(key(extent)); found != present_.end()) return found->second;  // meanwhile
  claim(index, extent, false);
  Slot& slot = slots_[index];
  slot.users = 1;
  lock.unlock();
  changed_.notify_all();
  std::string error;
  try {
    const Range wide = extent.whole_blocks();
    extent.file->read(wide.offset, std::span(slot.memory, wide.size));
  } catch (const Error& e) {
    error = e.what();
  }
  lock.lock();
  --slot.users;
  slot.error = error;
  slot.state = State::ready;
  changed_.notify_all();
  return index;
}

void ReadAhead::release(std::size_t index) {
  {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[index];
    if (--slot.users > 0 || slot.state != State::ready || slot.asked < slot.extent.size) return;
    drop(index);
  }
  changed_.notify_all();
}

ReadAhead::Lease ReadAhead::get(const Range& extent, Bytes offset, std::size_t size) {
  assert(offset >= extent.offset && offset + size <= extent.offset + extent.size);
  std::unique_lock lock(mutex_);
  const auto found = present_.find(key(extent));
  if ((found == present_.end() || slots_[found->second].asked == 0) && last_ != key(extent)) {
    // Workers overtake each other now and then: the order changes only when something else is asked for.
    const bool known = found != present_.end() || is_soon(extent);
    if (known)
      successor_.try_emplace(last_, extent);
    else
      successor_[last_] = extent;
    last_ = key(extent);
  }
  const std::size_t index = found != present_.end() ? found->second : read_now(extent, lock);
  Slot& slot = slots_[index];
  ++slot.users;
  slot.asked += size;
  if (slot.asked >= slot.extent.size) forget(index);
  changed_.wait(lock, [&] { return slot.state != State::reading; });
  if (!slot.error.empty()) {
    const std::string error = slot.error;
    slot.asked = slot.extent.size;
    forget(index);
    lock.unlock();
    release(index);
    fail<IoError>("{}", error);
  }
  std::shared_ptr<const void> held(&slot, [this, index](const void*) { release(index); });
  return {std::move(held), slot.memory + (offset - extent.whole_blocks().offset)};
}

StreamStats ReadAhead::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace snug
