#include "weights/read_ahead.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::size_t kBlock = 4096;  // direct reads begin and end at multiples of it
constexpr unsigned kDepth = 16;

/// A range widened to whole blocks; at the end of the file it is not.
ReadAhead::Range widened(const ReadAhead::Range& range) {
  const Bytes begin = range.offset / kBlock * kBlock;
  const Bytes end = std::min(range.file->size(), round_up(range.offset + range.size, kBlock));
  return {range.file, begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

std::size_t ReadAhead::slot_bytes(std::size_t most_bytes) {
  return round_up(most_bytes, kBlock) + kBlock;
}

ReadAhead::ReadAhead(Ledger& ledger, std::size_t slots, std::size_t most_bytes)
    : memory_(ledger, Tag::weights, slots * slot_bytes(most_bytes)), slots_(slots) {
  for (std::size_t i = 0; i < slots; ++i) slots_[i].memory = memory_.data() + i * slot_bytes(most_bytes);
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

/// The thread: keeps reads in flight as long as there are slots and a known order.
void ReadAhead::follow() {
  const auto reader = AsyncReader::create(kDepth);
  std::unique_lock lock(mutex_);
  while (!stop_) {
    for (std::size_t i = 0; i < slots_.size() && reader->in_flight() < kDepth && start_next(*reader);) ++i;
    if (reader->in_flight() == 0) {
      changed_.wait(lock);
      continue;
    }
    lock.unlock();
    const std::vector<ReadResult> results = reader->wait();
    lock.lock();
    finish(results);
  }
  lock.unlock();
  while (reader->in_flight() > 0) reader->wait();
}

bool ReadAhead::start_next(AsyncReader& reader) {
  const auto next = successor_.find(ahead_);
  if (next == successor_.end()) return false;
  const Range& range = next->second;
  if (present_.contains(key(range))) {  // read out of order before
    if (key(range) == last_) return false;
    ahead_ = key(range);
    return true;
  }
  const auto slot = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return s.state == State::free; });
  if (slot == slots_.end()) return false;
  ahead_ = key(range);
  slot->state = State::reading;
  slot->range = range;
  const auto index = static_cast<std::size_t>(slot - slots_.begin());
  present_[ahead_] = index;
  const Range wide = widened(range);
  reader.submit({wide.file, wide.offset, std::span(slot->memory, wide.size), index});
  return true;
}

void ReadAhead::finish(const std::vector<ReadResult>& results) {
  for (const ReadResult& result : results) {
    Slot& slot = slots_[result.tag];
    slot.state = State::ready;
    slot.error = result.error;
  }
  changed_.notify_all();
}

void ReadAhead::drop(Slot& slot) {
  present_.erase(key(slot.range));
  slot.state = State::free;
}

std::size_t ReadAhead::take_free(std::unique_lock<std::mutex>& lock) {
  for (;;) {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      // What was in flight when the order changed arrives meanwhile, and nobody may ever ask for it.
      if (slots_[i].state == State::ready && !slots_[i].wanted) drop(slots_[i]);
      if (slots_[i].state == State::free) return i;
    }
    changed_.wait(lock);
  }
}

std::size_t ReadAhead::read_now(const Range& range, std::unique_lock<std::mutex>& lock) {
  // What was read ahead was not what is wanted: begin again from here.
  for (Slot& slot : slots_)
    if (slot.state == State::ready && !slot.wanted) drop(slot);
  ahead_ = key(range);
  const std::size_t index = take_free(lock);
  Slot& slot = slots_[index];
  slot.state = State::used;
  slot.range = range;
  slot.error.clear();
  lock.unlock();
  changed_.notify_all();
  try {
    const Range wide = widened(range);
    range.file->read(wide.offset, std::span(slot.memory, wide.size));
  } catch (const Error& e) {
    slot.error = e.what();
  }
  lock.lock();
  return index;
}

ReadAhead::Lease ReadAhead::lease(std::size_t index) {
  const Slot& slot = slots_[index];
  std::shared_ptr<const void> held(&slot, [this, index](const void*) {
    {
      const std::lock_guard lock(mutex_);
      slots_[index].state = State::free;
    }
    changed_.notify_all();
  });
  return {std::move(held), slot.memory + slot.range.offset % kBlock};
}

ReadAhead::Lease ReadAhead::get(const Range& range) {
  std::unique_lock lock(mutex_);
  successor_[last_] = range;
  last_ = key(range);
  std::size_t index;
  if (const auto found = present_.find(last_); found != present_.end() && !slots_[found->second].wanted) {
    index = found->second;
    slots_[index].wanted = true;
    changed_.wait(lock, [&] { return slots_[index].state == State::ready; });
    slots_[index].wanted = false;
    slots_[index].state = State::used;
    present_.erase(key(range));
  } else {
    index = read_now(range, lock);
  }
  const std::string error = slots_[index].error;
  lock.unlock();
  Lease result = lease(index);
  if (!error.empty()) fail<IoError>("{}", error);
  return result;
}

}  // namespace snug
