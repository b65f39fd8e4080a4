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

/// Memory that one piece needs until it is packed; 0 when experts are read to their places.
std::size_t slot_bytes(std::span<const ExpertSet> sets) {
  if (sets.front().direct()) return 0;
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

bool ExpertSet::direct() const {
  const StoredTensor& first = *parts.front();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const StoredTensor& t = *parts[i];
    if (!t.tiled || t.file != first.file || t.offset != first.offset + part_offset(i) ||
        t.expert_stride != first.expert_stride)
      return false;
  }
  return first.offset % kDirectBlock == 0 && first.expert_stride % kDirectBlock == 0;
}

Bytes ExpertCache::staging_bytes(std::span<const ExpertSet> sets, Bytes free) {
  const std::size_t slot = slot_bytes(sets);
  return slot ? slot * std::clamp<std::size_t>(free / 8 / slot, kLeastPieces, kMostPieces) : 0;
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
  for (std::size_t i = 0; i < (slot ? shape.staging / slot : kMostPieces); ++i) {
    reads_.push_back({slot ? staging_memory_.data() + i * slot : nullptr, {}, {}});
    free_reads_.push_back(i);
  }
}

ExpertCache::~ExpertCache() {
  reader_.reset();  // waits for what is in flight
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
  const ExpertSet& parts = sets_[set];
  if (parts.direct()) {
    const StoredTensor& first = *parts.parts.front();
    for (std::size_t at = 0, size = parts.bytes(); at < size; at += kPieceBytes, ++expert.missing)
      queue.push_back({set,
                       number,
                       0,
                       {first.file, first.offset + number * first.expert_stride + at, std::min(kPieceBytes, size - at)},
                       at});
    return true;
  }
  for (std::size_t part = 0; part < parts.parts.size(); ++part) {
    const StoredTensor& tensor = *parts.parts[part];
    const std::size_t first = number * tensor.weight.groups(), end = first + tensor.weight.groups();
    for (std::size_t g = first, n = piece_groups(tensor); g < end; g += n, ++expert.missing)
      queue.push_back({set, number, part, tensor.range_of(g, std::min(end, g + n)),
                       parts.part_offset(part) + (g - first) * tensor.group_bytes()});
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
  while (!free_reads_.empty()) {
    std::deque<Piece>& queue = demanded_.empty() ? expected_ : demanded_;
    if (queue.empty()) return;
    const std::size_t index = free_reads_.back();
    free_reads_.pop_back();
    Read& read = reads_[index];
    read.piece = queue.front();
    queue.pop_front();
    Expert& expert = at(read.piece.set, read.piece.expert);
    expert.submitted = true;
    read.blocks = read.piece.range.whole_blocks();
    stats_.bytes_read += read.blocks.size;
    std::byte* into = read.staging ? read.staging : expert.memory.data() + read.piece.offset;
    reader_->submit({read.blocks.file, read.blocks.offset, std::span(into, read.blocks.size), index});
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
    for (const std::size_t index : arrived) free_reads_.push_back(index);
    abandon();
    fail<IoError>("{}", error);
  }
  if (staging_memory_.size() > 0) pack(arrived);
  for (const std::size_t index : arrived) {
    const Piece& piece = reads_[index].piece;
    free_reads_.push_back(index);
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
      const Read& read = reads_[arrived[i / kParts]];
      const Piece& piece = read.piece;
      const StoredTensor& tensor = *sets_[piece.set].parts[piece.part];
      const std::size_t each = tensor.file_group_bytes(), groups = (piece.range.size + each - 1) / each;
      const std::size_t begin = groups * (i % kParts) / kParts, end = groups * (i % kParts + 1) / kParts;
      if (begin == end) continue;
      const std::byte* stored = read.staging + (piece.range.offset - read.blocks.offset) + begin * each;
      std::byte* out = experts_[piece.set * expert_count_ + piece.expert].memory.data() + piece.offset;
      tensor.pack({stored, std::min(piece.range.size, end * each) - begin * each}, out + begin * tensor.group_bytes());
    }
  });
}

/// After an error: nothing is wanted or read any more.
void ExpertCache::abandon() {
  while (reader_->in_flight() > 0)
    for (const ReadResult& result : reader_->wait()) free_reads_.push_back(result.tag);
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
