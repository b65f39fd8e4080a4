#include "weights/expert_cache.hpp"

#include <algorithm>
#include <cassert>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::size_t kPieceBytes = 1 << 20;  // of a read, at most: few results to wait for
constexpr std::size_t kMostPieces = 16, kLeastPieces = 2;
/// Experts of a layer that are read in advance: what the disk gets done while the dense part is computed.
constexpr std::size_t kMostPreloads = 2;
/// Share of guesses that must turn out right for more of them, and how often it is tried when they do not.
constexpr double kTrusted = 0.3;
constexpr std::uint32_t kTryEvery = 64;

std::size_t piece_groups(const StoredTensor& tensor) {
  return std::clamp<std::size_t>(kPieceBytes / tensor.file_group_bytes(), 1, tensor.weight.groups());
}

/// Memory of one staged piece.
std::size_t slot_bytes(std::span<const ExpertSet> sets) {
  std::size_t most = 0;
  for (const ExpertSet& set : sets)
    for (const StoredTensor* part : set.parts) most = std::max(most, piece_groups(*part) * part->file_group_bytes());
  return FileRange::blocks_bytes(most);
}

Bytes largest_expert(std::span<const ExpertSet> sets) {
  Bytes largest = 0;
  for (const ExpertSet& set : sets) largest = std::max<Bytes>(largest, set.bytes());
  return largest;
}

}  // namespace

std::size_t ExpertSet::part_offset(std::size_t part) const {
  std::size_t offset = 0;
  for (std::size_t i = 0; i < part; ++i) offset += round_up(parts[i]->expert_bytes(), kDirectBlock);
  return offset;
}

Bytes ExpertCache::staging_bytes(std::span<const ExpertSet> sets, Bytes free) {
  const std::size_t slot = slot_bytes(sets);
  return slot * std::clamp<std::size_t>(free / 8 / slot, kLeastPieces, kMostPieces);
}

Bytes ExpertCache::least_bytes(std::span<const ExpertSet> sets) {
  return kLeastPieces * slot_bytes(sets) + 2 * largest_expert(sets);
}

ExpertCache::ExpertCache(Ledger& ledger, ThreadPool& pool, std::vector<ExpertSet> sets, std::size_t experts,
                         const Shape& shape)
    : ledger_(ledger),
      pool_(pool),
      sets_(std::move(sets)),
      expert_count_(experts),
      capacity_(shape.capacity),
      experts_(sets_.size() * experts),
      policy_(make_expert_policy(shape.policy, sets_.size(), experts)),
      staging_memory_(ledger, Tag::weights, shape.staging),
      reader_(AsyncReader::create(kMostPieces)) {
  const std::size_t slot = slot_bytes(sets_);
  for (std::size_t i = 0; i < shape.staging / slot; ++i) {
    staged_.push_back({staging_memory_.data() + i * slot, {}, {}});
    free_staged_.push_back(i);
  }
}

ExpertCache::~ExpertCache() {
  reader_.reset();  // waits for what is in flight
}

FileRange ExpertCache::range_of(const Piece& piece) const {
  return sets_[piece.set].parts[piece.part]->range_of(piece.begin, piece.end);
}

void ExpertCache::want(std::uint32_t set, const ExpertUses& uses) {
  const std::lock_guard lock(mutex_);
  assert(outstanding_ == 0);
  policy_->routed(set, uses);
  set_ = set;
  for (std::uint32_t e = 0; e < expert_count_; ++e) {
    Expert& expert = at(set_, e);
    if (expert.preloaded) trust_ += ((uses.uses[e] > 0 ? 1 : 0) - trust_) / 32;
    if (uses.uses[e] == 0) {
      // A wrong prediction that nothing was done about yet is forgotten.
      if (expert.state == State::reading && !expert.submitted) drop(expert);
      expert.preloaded = false;
      continue;
    }
    expert.wanted = true;
    ++outstanding_;
    if (expert.preloaded) ++stats_.preloads_used;
    expert.preloaded = false;
    ++(expert.state == State::absent ? stats_.misses : stats_.hits);
    if (expert.state == State::ready) ready_.push_back(e);
    if (expert.state == State::absent) waiting_.push_back(e);
  }
  const auto still = [this](const Piece& p) { return at(p.set, p.expert).state == State::reading; };
  for (const Piece& piece : expected_)
    if (still(piece) && at(piece.set, piece.expert).wanted) demanded_.push_back(piece);
  std::erase_if(expected_, [&](const Piece& p) { return !still(p) || at(p.set, p.expert).wanted; });
  admit();
  submit();
}

void ExpertCache::expect(std::uint32_t set, std::span<const std::uint32_t> experts) {
  const std::lock_guard lock(mutex_);
  if (trust_ < kTrusted && ++not_tried_ % kTryEvery != 0) return;
  std::size_t begun = 0;
  for (const std::uint32_t e : experts) {
    if (begun == kMostPreloads || !waiting_.empty()) break;
    if (at(set, e).state != State::absent) continue;
    if (!start_reading(set, e, expected_)) break;
    at(set, e).preloaded = true;
    ++begun;
  }
  stats_.preloads += begun;
  submit();
}

/// Memory for what is wanted, and its pieces to the queue.
void ExpertCache::admit() {
  while (!waiting_.empty() && start_reading(set_, waiting_.front(), demanded_)) waiting_.pop_front();
}

bool ExpertCache::start_reading(std::uint32_t set, std::uint32_t number, std::deque<Piece>& queue) {
  std::optional<Buffer> memory = make_room(sets_[set].bytes());
  if (!memory) return false;
  Expert& expert = at(set, number);
  held_ += memory->size();
  expert.memory = std::move(*memory);
  expert.state = State::reading;
  expert.submitted = false;
  expert.missing = 0;
  for (std::size_t part = 0; part < sets_[set].parts.size(); ++part) {
    const StoredTensor& tensor = *sets_[set].parts[part];
    const std::size_t first = number * tensor.weight.groups(), end = first + tensor.weight.groups();
    for (std::size_t g = first, n = piece_groups(tensor); g < end; g += n, ++expert.missing)
      queue.push_back({set, number, part, g, std::min(end, g + n)});
  }
  return true;
}

/// Memory for an expert, if need be that of another one.
std::optional<Buffer> ExpertCache::make_room(std::size_t bytes) {
  while (held_ + bytes > capacity_) {
    Buffer memory = evict_one();
    if (memory.size() == 0) return std::nullopt;
    // Memory that is used again need not be cleared by the system.
    if (memory.size() == bytes && held_ + bytes <= capacity_) return memory;
  }
  try {
    return Buffer(ledger_, Tag::weights, bytes);
  } catch (const OutOfBudget&) {
    if (held_ == 0) throw;
    return std::nullopt;  // somebody else has taken what was meant for experts: with fewer it goes on
  }
}

Buffer ExpertCache::evict_one() {
  std::vector<ExpertId> candidates;
  for (std::uint32_t i = 0; i < experts_.size(); ++i) {
    const Expert& e = experts_[i];
    if (e.state == State::ready && !e.wanted && !e.given)
      candidates.push_back(
          {static_cast<std::uint32_t>(i / expert_count_), static_cast<std::uint32_t>(i % expert_count_)});
  }
  if (candidates.empty()) return {};
  const ExpertId victim = candidates[policy_->victim(candidates)];
  return drop(at(victim.set, victim.expert));
}

/// Returns its memory, for whoever can use it.
Buffer ExpertCache::drop(Expert& expert) {
  held_ -= expert.memory.size();
  return std::move(std::exchange(expert, Expert()).memory);
}

/// Keeps the disk busy: what is wanted first.
void ExpertCache::submit() {
  while (!free_staged_.empty()) {
    std::deque<Piece>& queue = demanded_.empty() ? expected_ : demanded_;
    if (queue.empty()) return;
    const std::size_t index = free_staged_.back();
    free_staged_.pop_back();
    Staged& staged = staged_[index];
    staged.piece = queue.front();
    queue.pop_front();
    at(staged.piece.set, staged.piece.expert).submitted = true;
    staged.read = range_of(staged.piece).whole_blocks();
    stats_.bytes_read += staged.read.size;
    reader_->submit({staged.read.file, staged.read.offset, std::span(staged.memory, staged.read.size), index});
  }
}

void ExpertCache::collect() {
  std::vector<std::size_t> arrived;
  std::string error;
  for (const ReadResult& result : reader_->wait()) {
    arrived.push_back(result.tag);
    if (!result.error.empty()) error = result.error;
  }
  if (!error.empty()) {
    for (const std::size_t index : arrived) free_staged_.push_back(index);
    abandon();
    fail<IoError>("{}", error);
  }
  pack(arrived);
  for (const std::size_t index : arrived) {
    const Piece& piece = staged_[index].piece;
    free_staged_.push_back(index);
    Expert& expert = at(piece.set, piece.expert);
    if (--expert.missing > 0) continue;
    expert.state = State::ready;
    if (expert.wanted) ready_.push_back(piece.expert);
  }
}

void ExpertCache::pack(std::span<const std::size_t> arrived) {
  constexpr std::size_t kParts = 4;  // of a piece: shared out to the pool
  pool_.parallel_for(arrived.size() * kParts, 1, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t i = from; i < to; ++i) {
      const Staged& staged = staged_[arrived[i / kParts]];
      Piece p = staged.piece;
      const std::size_t groups = p.end - p.begin, first = p.begin;
      p.begin = first + groups * (i % kParts) / kParts;
      p.end = first + groups * (i % kParts + 1) / kParts;
      if (p.begin == p.end) continue;
      const StoredTensor& tensor = *sets_[p.set].parts[p.part];
      const FileRange range = range_of(p);
      std::byte* out = experts_[p.set * expert_count_ + p.expert].memory.data() + sets_[p.set].part_offset(p.part) +
                       (p.begin - p.expert * tensor.weight.groups()) * tensor.group_bytes();
      tensor.pack({staged.memory + (range.offset - staged.read.offset), range.size}, out);
    }
  });
}

/// After an error: nothing is wanted or read any more.
void ExpertCache::abandon() {
  while (reader_->in_flight() > 0)
    for (const ReadResult& result : reader_->wait()) free_staged_.push_back(result.tag);
  demanded_.clear();
  expected_.clear();
  waiting_.clear();
  ready_.clear();
  given_.clear();
  outstanding_ = 0;
  for (Expert& expert : experts_) {
    if (expert.state == State::reading) drop(expert);
    expert.wanted = expert.given = false;
  }
}

std::vector<std::uint32_t> ExpertCache::next() {
  std::unique_lock lock(mutex_);
  for (const std::uint32_t e : given_) at(set_, e).given = false;
  given_.clear();
  while (outstanding_ > 0 && ready_.empty()) {
    admit();
    submit();
    if (reader_->in_flight() == 0) {
      const LedgerReport now = ledger_.report();
      const Bytes bytes = sets_[set_].bytes();
      abandon();
      throw OutOfBudget(bytes, Tag::weights, now.used, now.limit);
    }
    collect();
  }
  for (const std::uint32_t e : ready_) {
    at(set_, e).wanted = false;
    at(set_, e).given = true;
  }
  outstanding_ -= ready_.size();
  given_ = std::exchange(ready_, {});
  submit();
  return given_;
}

const std::byte* ExpertCache::find(std::uint32_t set, std::uint32_t expert, std::size_t part) const {
  const Expert& e = experts_[set * expert_count_ + expert];
  assert(e.given);
  return e.memory.data() + sets_[set].part_offset(part);
}

Bytes ExpertCache::give_back(Bytes wanted) {
  const std::lock_guard lock(mutex_);
  const Bytes least = 2 * largest_expert(sets_);
  const Bytes before = held_;
  while (before - held_ < wanted && held_ > least && evict_one().size() > 0) {
  }
  capacity_ = std::max(least, held_);  // the rest is somebody else's: the cache does not ask for it again
  return before - held_;
}

void ExpertCache::set_capacity(Bytes capacity) {
  const std::lock_guard lock(mutex_);
  const Bytes least = 2 * largest_expert(sets_);
  capacity_ = std::max(capacity, least);
  while (held_ > capacity_ && evict_one().size() > 0) {
  }
}

Bytes ExpertCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return held_ + staging_memory_.size();
}

ExpertStats ExpertCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace snug
