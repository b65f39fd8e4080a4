#include "weights/file_source.hpp"

#include <fcntl.h>

#include <algorithm>
#include <limits>
#include <span>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::size_t kAlign = 64;
constexpr Bytes kPage = 4096;
constexpr Bytes kAheadBytes = 16 << 20;          // of memory for reading ahead,
constexpr std::size_t kMostAhead = 256;          // and of ranges
constexpr std::size_t kExtentBytes = 256 << 10;  // of a read, at most: few enough for a ring, enough for the disk
constexpr std::size_t kLoadBytes = 1 << 20;      // per task: large enough for the disk, small enough for the cache

std::uint32_t narrow(std::uint64_t value, const std::string& name) {
  if (value == 0 || value > std::numeric_limits<std::uint32_t>::max())
    fail<FormatError>("tensor {} has a dimension of {}", name, value);
  return static_cast<std::uint32_t>(value);
}

}  // namespace

Weight FileSource::add(const GgufFile& file, const GgufTensor& tensor, bool as_f32) {
  if (!dtype_info(tensor.type).weight)
    fail<FormatError>("tensor {} has type {}, which cannot be multiplied", tensor.name, dtype_info(tensor.type).name);
  Entry entry;
  StoredTensor& stored = entry.stored;
  stored.name = tensor.name;
  stored.file = &file.file(tensor.file);
  stored.file_type = tensor.type;
  stored.offset = tensor.offset;
  Weight& w = stored.weight;
  w.id = static_cast<std::uint32_t>(entries_.size());
  w.type = as_f32 ? DType::f32 : tensor.type;
  w.cols = narrow(tensor.columns(), tensor.name);
  w.rows = narrow(tensor.shape.size() > 1 ? tensor.shape[1] : 1, tensor.name);
  w.experts = narrow(tensor.shape.size() > 2 ? tensor.shape[2] : 1, tensor.name);
  stored.expert_stride = w.rows * row_bytes(tensor.type, w.cols);
  set_extent(entry);
  entry.offset = bytes_;
  bytes_ = checked_add(bytes_, round_up(checked_mul(tile_matrix_bytes(w.type, w.rows, w.cols), w.experts), kAlign));
  entries_.push_back(entry);
  return w;
}

void FileSource::set_extent(Entry& entry) const {
  entry.extent_groups = std::max<std::size_t>(1, kExtentBytes / (step_ * entry.stored.file_group_bytes())) * step_;
}

void FileSource::use_pack(PackFile pack) {
  for (Entry& e : entries_) {
    if (e.only_rows) continue;
    StoredTensor& t = e.stored;
    const Weight& w = t.weight;
    const PackedTensor* found = pack.find(t.name);
    if (!found || found->type != w.type || found->rows != w.rows || found->cols != w.cols ||
        found->experts != w.experts)
      fail<FormatError>("{}: tensor {} is missing or another one", pack.file().path(), t.name);
    t.file = &pack.file();
    t.file_type = w.type;
    t.offset = found->offset;
    t.expert_stride = found->expert_stride;
    t.tiled = true;
    set_extent(e);
  }
  pack_ = std::move(pack);
}

std::vector<PackUnit> FileSource::pack_units() const {
  std::vector<PackUnit> units;
  for (const Entry& e : entries_)
    if (e.banded()) units.push_back({&e.stored});
  for (const ExpertSet& set : expert_sets()) units.push_back(set.parts);
  return units;
}

void FileSource::experts_of_layer(std::span<const Weight> parts) {
  std::vector<std::uint32_t>& set = sets_.emplace_back();
  for (const Weight& part : parts) {
    Entry& entry = entries_[part.id];
    if (entry.set >= 0) continue;
    entry.set = static_cast<std::int32_t>(sets_.size() - 1);
    entry.part = set.size();
    set.push_back(part.id);
  }
}

std::vector<ExpertSet> FileSource::expert_sets() const {
  std::vector<ExpertSet> sets;
  for (const auto& entries : sets_) {
    ExpertSet& set = sets.emplace_back();
    for (const std::uint32_t id : entries) set.parts.push_back(&entries_[id].stored);
  }
  return sets;
}

FileSource::Buffers FileSource::plan_buffers(Bytes free) const {
  Buffers buffers;
  for (const Entry& e : entries_) {
    if (!e.banded()) continue;
    const std::size_t extent = std::min<std::size_t>(e.extent_groups, e.stored.weight.groups());
    if (!e.stored.tiled) buffers.packed = std::max(buffers.packed, round_up(step_ * e.stored.group_bytes(), kAlign));
    buffers.raw = std::max(buffers.raw, round_up(extent * e.stored.file_group_bytes(), kAlign));
  }
  const Bytes ring = std::min(kAheadBytes, free / 8), slot = FileRange::blocks_bytes(buffers.raw);
  buffers.ahead = std::clamp<std::size_t>(ring / slot, 2 * pool_.size() + 2, kMostAhead);
  buffers.bytes = round_up(buffers.packed * pool_.size(), kPage) + round_up(buffers.ahead * slot, kPage);
  return buffers;
}

std::size_t FileSource::most_row_bytes() const {
  std::size_t most = 0;
  for (const Entry& e : entries_)
    if (e.looked_up) most = std::max(most, e.stored.range_of_row(0).size);
  return most;
}

Bytes FileSource::least_bytes() const {
  const Bytes experts = sets_.empty() ? 0 : ExpertCache::least_bytes(expert_sets());
  return std::min(bytes_, plan_buffers(0).bytes + row_reader_bytes() + experts);
}

WeightPlan FileSource::plan(Bytes limit, Bytes used, Bytes spare, Bytes most_spare) const {
  WeightPlan plan;
  plan.total = bytes_;
  plan.packed = pack_.has_value();
  Bytes all_experts = 0;
  for (const Entry& e : entries_) {
    if (e.only_rows) continue;
    const StoredTensor& t = e.stored;
    const std::uint64_t values = std::uint64_t{t.weight.rows} * t.weight.cols * t.weight.experts;
    (e.set >= 0 ? plan.multiplied_experts : plan.multiplied) += t.all_groups() * t.group_bytes();
    (e.set >= 0 ? plan.expert_values : plan.values) += values;
    if (e.set >= 0) plan.expert_file_bytes += t.weight.experts * t.file_expert_bytes();
  }
  const auto room = [&](Bytes other) {
    const Bytes taken = checked_add(used, other);
    return limit > taken ? limit - taken : 0;
  };
  if (!shares_ && round_up(bytes_, kPage) <= room(most_spare)) {
    plan.whole = true;
    plan.bands = PinnedBands::kBands;
    plan.pinned = round_up(bytes_, kPage);
    plan.expert_share = 1;
    return plan;
  }
  const std::vector<ExpertSet> sets = expert_sets();
  const Bytes dense = bands_.bytes(PinnedBands::kBands);
  Bytes least_experts = 0;
  if (!sets.empty()) {
    least_experts = ExpertCache::least_bytes(sets);
    for (const ExpertSet& set : sets) all_experts += set.bytes() * set.parts[0]->weight.experts;
  }
  if ((shares_ || !sets.empty()) && dense + row_reader_bytes() + least_experts <= room(spare)) {
    plan.bands = PinnedBands::kBands;
    plan.pinned = dense;
    if (!sets.empty()) plan.staging = ExpertCache::staging_bytes(sets, room(spare) - dense);
    if (shares_ && cache_) plan.staging = cache_->staging();  // with another one, no expert could stay
    plan.buffers = plan.staging + row_reader_bytes();
    plan.experts = std::min(all_experts, room(spare) - dense - plan.buffers);
  } else {
    if (!sets.empty()) {
      plan.staging = ExpertCache::staging_bytes(sets, 0);
      plan.experts = least_experts - plan.staging;
    }
    plan.buffers = plan_buffers(room(0)).bytes + row_reader_bytes() + plan.staging;
    while (plan.bands < PinnedBands::kBands && plan.memory() + bands_.bytes(plan.bands + 1) <= room(spare))
      ++plan.bands;
    plan.pinned = bands_.bytes(plan.bands);
  }
  if (all_experts > 0) plan.expert_share = static_cast<double>(plan.experts) / static_cast<double>(all_experts);
  for (const Entry& e : entries_) {
    if (!e.banded()) continue;
    plan.streamed += (e.stored.all_groups() - pinned_groups(e, plan.bands)) * e.stored.file_group_bytes();
  }
  return plan;
}

void FileSource::prepare() {
  std::vector<const StoredTensor*> tensors;
  for (const Entry& e : entries_) tensors.push_back(e.banded() && !e.seldom ? &e.stored : nullptr);
  bands_.set_tensors(std::move(tensors));
}

void FileSource::load(Bytes spare, Bytes most_spare) {
  const LedgerReport report = ledger_.report();
  settle(plan(report.limit, report.used, spare, most_spare), {});
}

void FileSource::refit(Bytes spare, Bytes most_spare, std::span<std::byte> scratch) {
  const LedgerReport report = ledger_.report();
  const WeightPlan lying = plan(report.limit, report.used - memory_bytes(), spare, most_spare);
  if (!lying.whole || whole_.size() == 0) settle(lying, scratch);
}

/// Gives up what `lying` has no room for, then takes what it has.
void FileSource::settle(const WeightPlan& lying, std::span<std::byte> scratch) {
  stop_streaming();
  rests_ = false;
  whole_ = Buffer();
  if (lying.whole || (cache_ && cache_->staging() != lying.staging)) cache_.reset();
  if (cache_) cache_->set_capacity(std::min<Bytes>(lying.experts, cache_->bytes() - cache_->staging()));
  bands_.resize(lying.whole ? 0 : std::min(bands_.count(), lying.bands));
  if (lying.whole) return load_whole();
  open_direct();
  row_reader_ = std::make_unique<RowReader>(ledger_, most_row_bytes());
  buffer_bytes_ = row_reader_bytes();
  const bool some_seldom = std::any_of(entries_.begin(), entries_.end(), [](const Entry& e) { return e.seldom; });
  if (lying.bands < PinnedBands::kBands || some_seldom)
    start_streaming(lying.buffers - lying.staging - row_reader_bytes());
  const Bytes missing = bands_.file_bytes(lying.bands);
  bands_.resize(lying.bands, scratch);
  bytes_read_ += missing;
  if (read_ahead_) foresee_order();
  if (cache_) cache_->set_capacity(lying.experts);
  if (!cache_ && !sets_.empty())
    cache_ = std::make_unique<ExpertCache>(
        ledger_, pool_, expert_sets(), entries_[sets_[0][0]].stored.weight.experts,
        ExpertCache::Shape{.staging = lying.staging, .capacity = lying.experts, .policy = policy_});
  holder_ = ledger_.add_holder({[] { return 1.0; }, [this](Bytes wanted) { return give_back(wanted); }});
}

void FileSource::load_whole() {
  whole_ = Buffer(ledger_, Tag::weights, bytes_);
  struct Task {
    const Entry* entry;
    std::size_t begin, end;  // groups over all experts
  };
  std::vector<Task> tasks;
  std::size_t largest = 0;
  for (const Entry& e : entries_) {
    const std::size_t each = e.stored.file_group_bytes(), all = e.stored.all_groups();
    const std::size_t step = std::max<std::size_t>(1, kLoadBytes / each);
    largest = std::max(largest, step * each);
    for (std::size_t g = 0; g < all; g += step) tasks.push_back({&e, g, std::min(all, g + step)});
  }
  std::vector<std::vector<std::byte>> scratch(pool_.size());
  pool_.parallel_for(tasks.size(), 1, [&](std::size_t from, std::size_t to, unsigned worker) {
    scratch[worker].resize(largest);
    for (std::size_t i = from; i < to; ++i) {
      const Entry& e = *tasks[i].entry;
      e.stored.read_groups(tasks[i].begin, tasks[i].end, scratch[worker].data(),
                           whole_.data() + e.offset + tasks[i].begin * e.stored.group_bytes());
    }
  });
}

/// `memory`: that plan_buffers() asked for.
void FileSource::start_streaming(Bytes memory) {
  Buffers buffers = plan_buffers(0);
  const Bytes slots = round_up(buffers.packed * pool_.size(), kPage);
  buffers.ahead = (memory - slots) / FileRange::blocks_bytes(buffers.raw);
  slot_memory_ = Buffer(ledger_, Tag::weights, slots);
  for (std::size_t i = 0; i < pool_.size(); ++i) free_slots_.push_back(slot_memory_.data() + i * buffers.packed);
  read_ahead_ = std::make_unique<ReadAhead>(ledger_, buffers.ahead, buffers.raw);
  buffer_bytes_ += memory;
}

/// Tensors are used in the order in which they were added, more or less.
void FileSource::foresee_order() {
  std::vector<FileRange> order;
  for (const Entry& e : entries_) {
    if (!e.banded()) continue;
    for (std::size_t g = pinned_groups(e, bands_.count()), all = e.stored.all_groups(); g < all;) {
      order.push_back(extent_of(e, g, g + 1));
      g += std::max<std::size_t>(1, order.back().size / e.stored.file_group_bytes());
    }
  }
  read_ahead_->expect(order);
}

void FileSource::stop_streaming() {
  holder_.reset();
  read_ahead_.reset();
  row_reader_.reset();
  free_slots_.clear();
  slot_memory_ = Buffer();
  buffer_bytes_ = 0;
}

void FileSource::rest() {
  stop_streaming();
  rests_ = true;
}

void FileSource::open_direct() {
  for (Entry& e : entries_) {
    StoredTensor& t = e.stored;
    if (t.file->descriptor() < 0) continue;  // not a file of the file system
    auto known =
        std::find_if(direct_.begin(), direct_.end(), [&](const auto& file) { return file->path() == t.file->path(); });
    if (known == direct_.end()) known = direct_.insert(known, open_file(t.file->path(), Caching::direct));
    posix_fadvise(t.file->descriptor(), 0, 0, POSIX_FADV_DONTNEED);  // what reading the header has left in the cache
    t.file = known->get();
  }
}

void FileSource::check_files() const {
  if (whole_.size() > 0) return;
  for (const auto& file : direct_)
    if (file->changed()) fail<IoError>("{} was changed while it was in use", file->path());
}

Bytes FileSource::give_back(Bytes wanted) {
  Bytes released = cache_ ? cache_->give_back(wanted) : 0;
  while (released < wanted && bands_.count() > 0 && (read_ahead_ || rests_)) {
    const Bytes before = bands_.bytes();
    bands_.resize(bands_.count() - 1);
    released += before - bands_.bytes();
  }
  return released;
}

Bytes FileSource::pinned_bytes() const {
  return round_up(whole_.size(), kPage) + bands_.bytes();
}

FileRange FileSource::extent_of(const Entry& entry, std::size_t begin, std::size_t end) const {
  const std::size_t groups = entry.stored.weight.groups(), expert = begin / groups * groups, last = expert + groups;
  const std::size_t pinned = pinned_groups(entry, bands_.count());
  const std::size_t base = pinned <= begin ? std::max(expert, pinned) : begin;
  // Even parts, none of them small.
  const std::size_t parts = (last - base + entry.extent_groups - 1) / entry.extent_groups;
  const std::size_t each = round_up((last - base + parts - 1) / parts, step_);
  const std::size_t from = base + (begin - base) / each * each, to = std::min(last, from + each);
  return end > to ? entry.stored.range_of(begin, end) : entry.stored.range_of(from, to);
}

const std::byte* FileSource::find(const Entry& entry, std::size_t begin, std::size_t end) const {
  if (whole_.size() > 0) return whole_.data() + entry.offset + begin * entry.stored.group_bytes();
  if (!entry.banded()) return nullptr;
  return bands_.find(entry.stored.weight.id, begin, end);
}

WeightSlice FileSource::slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                              std::size_t group_end) {
  const Entry& entry = entries_[weight.id];
  const std::size_t begin = expert * weight.groups() + group_begin, end = begin + (group_end - group_begin);
  TileMatrix m{weight.type, std::min<std::size_t>(weight.rows, group_end * kTileRows) - group_begin * kTileRows,
               weight.cols, nullptr};
  m.data = cache_ && entry.set >= 0 ? cache_->find(static_cast<std::uint32_t>(entry.set), expert, entry.part) +
                                          group_begin * entry.stored.group_bytes()
                                    : find(entry, begin, end);
  if (m.data) return {m, nullptr};
  const FileRange range = entry.stored.range_of(begin, end);
  const ReadAhead::Lease stored = read_ahead_->get(extent_of(entry, begin, end), range.offset, range.size);
  if (entry.stored.tiled) {
    m.data = stored.data;
    return {m, stored.slot};
  }
  std::shared_ptr<std::byte> slot = take_slot();
  entry.stored.pack(std::span(stored.data, range.size), slot.get());
  m.data = slot.get();
  return {m, std::move(slot)};
}

void FileSource::rows(const Weight& weight, std::span<const RowUse> uses) {
  const Entry& entry = entries_[weight.id];
  const auto in_memory = [&](const RowUse& use) { return find(entry, use.row / kTileRows, use.row / kTileRows + 1); };
  pool_.parallel_for(uses.size(), 8, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t i = from; i < to; ++i)
      if (const std::byte* data = in_memory(uses[i]))
        dequantize_packed_row({weight.type, kTileRows, weight.cols, data}, uses[i].row % kTileRows, uses[i].out);
  });
  std::vector<RowUse> missing;
  for (const RowUse& use : uses)
    if (!in_memory(use)) missing.push_back(use);
  if (!missing.empty()) row_reader_->read(entry.stored, missing);
}

void FileSource::want_experts(const Weight& part, const ExpertUses& uses) {
  if (cache_) return cache_->want(static_cast<std::uint32_t>(entries_[part.id].set), uses);
  all_wanted_.clear();
  for (std::uint32_t e = 0; e < uses.uses.size(); ++e)
    if (uses.uses[e] > 0) all_wanted_.push_back(e);
}

std::vector<std::uint32_t> FileSource::next_experts() {
  return cache_ ? cache_->next() : std::exchange(all_wanted_, {});
}

void FileSource::expect_experts(const Weight& part, std::span<const std::uint32_t> experts) {
  if (cache_) cache_->expect(static_cast<std::uint32_t>(entries_[part.id].set), experts);
}

std::shared_ptr<std::byte> FileSource::take_slot() {
  std::unique_lock lock(mutex_);
  slot_free_.wait(lock, [this] { return !free_slots_.empty(); });
  std::byte* slot = free_slots_.back();
  free_slots_.pop_back();
  return {slot, [this](std::byte* s) {
            {
              const std::lock_guard free_lock(mutex_);
              free_slots_.push_back(s);
            }
            slot_free_.notify_one();
          }};
}

}  // namespace snug
