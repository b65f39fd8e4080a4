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
constexpr std::size_t kExtentBytes = 256 << 10;  // of a read, about: smaller ones cost the disk's full speed
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
  entry.file = &file.file(tensor.file);
  entry.file_type = tensor.type;
  entry.file_offset = tensor.offset;
  Weight& w = entry.weight;
  w.id = static_cast<std::uint32_t>(entries_.size());
  w.type = as_f32 ? DType::f32 : tensor.type;
  w.cols = narrow(tensor.columns(), tensor.name);
  w.rows = narrow(tensor.shape.size() > 1 ? tensor.shape[1] : 1, tensor.name);
  w.experts = narrow(tensor.shape.size() > 2 ? tensor.shape[2] : 1, tensor.name);
  entry.extent_groups = std::max<std::size_t>(1, kExtentBytes / (step_ * entry.file_group_bytes())) * step_;
  entry.offset = bytes_;
  bytes_ = checked_add(bytes_, round_up(checked_mul(tile_matrix_bytes(w.type, w.rows, w.cols), w.experts), kAlign));
  entries_.push_back(entry);
  return w;
}

FileSource::Buffers FileSource::plan_buffers(Bytes free) const {
  Buffers buffers;
  for (const Entry& e : entries_) {
    if (e.only_rows) continue;
    const std::size_t extent = std::min<std::size_t>(std::max(e.extent_groups, step_), e.weight.groups());
    buffers.packed = std::max(buffers.packed, round_up(step_ * e.group_bytes(), kAlign));
    buffers.raw = std::max(buffers.raw, round_up(extent * e.file_group_bytes(), kAlign));
  }
  const Bytes ring = std::min(kAheadBytes, free / 8);
  buffers.ahead = std::clamp<std::size_t>(ring / ReadAhead::slot_bytes(buffers.raw), 2 * pool_.size() + 2, kMostAhead);
  buffers.bytes = round_up(buffers.packed * pool_.size(), kPage) +
                  round_up(buffers.ahead * ReadAhead::slot_bytes(buffers.raw), kPage);
  return buffers;
}

Bytes FileSource::band_bytes(std::size_t band) const {
  Bytes size = 0;
  for (const Entry& e : entries_) {
    const std::size_t groups = e.band_begin(band + 1, step_) - e.band_begin(band, step_);
    if (!e.only_rows) size += round_up(groups * e.group_bytes(), kAlign);
  }
  return round_up(size, kPage);
}

WeightPlan FileSource::plan(Bytes limit, Bytes used, Bytes spare, Bytes most_spare) const {
  WeightPlan plan;
  plan.total = bytes_;
  for (const Entry& e : entries_) {
    if (e.only_rows) continue;
    const bool experts = e.weight.experts > 1;
    (experts ? plan.multiplied_experts : plan.multiplied) += e.all_groups() * e.group_bytes();
    (experts ? plan.expert_values : plan.values) += std::uint64_t{e.weight.rows} * e.weight.cols * e.weight.experts;
  }
  const auto room = [&](Bytes other) {
    const Bytes taken = checked_add(used, other);
    return limit > taken ? limit - taken : 0;
  };
  if (round_up(bytes_, kPage) <= room(most_spare)) {
    plan.whole = true;
    plan.bands = kBands;
    plan.pinned = round_up(bytes_, kPage);
    return plan;
  }
  plan.buffers = plan_buffers(room(0)).bytes;
  for (; plan.bands < kBands; ++plan.bands) {
    const Bytes more = band_bytes(plan.bands);
    if (plan.memory() + more > room(spare)) break;
    plan.pinned += more;
  }
  for (const Entry& e : entries_) {
    const std::size_t groups = e.all_groups() - e.band_begin(plan.bands, step_);
    if (!e.only_rows) (e.weight.experts > 1 ? plan.streamed_experts : plan.streamed) += groups * e.file_group_bytes();
  }
  return plan;
}

void FileSource::load(Bytes spare, Bytes most_spare) {
  const LedgerReport report = ledger_.report();
  const WeightPlan lying = plan(report.limit, report.used, spare, most_spare);
  if (lying.whole) return load_whole();
  start_streaming(report.limit - report.used);
  pin_bands(lying.bands);
}

void FileSource::refit(Bytes spare, Bytes most_spare) {
  const LedgerReport report = ledger_.report();
  const Bytes others = report.used - memory_bytes();
  const WeightPlan lying = plan(report.limit, others, spare, most_spare);
  if (lying.whole && whole_.size() > 0) return;
  stop_streaming();
  whole_ = Buffer();
  bands_.resize(lying.whole ? 0 : std::min(bands_.size(), lying.bands));
  if (lying.whole) return load_whole();
  start_streaming(report.limit > others ? report.limit - others : 0);
  pin_bands(lying.bands);
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
    const std::size_t step = std::max<std::size_t>(1, kLoadBytes / e.file_group_bytes());
    largest = std::max(largest, step * e.file_group_bytes());
    for (std::size_t g = 0; g < e.all_groups(); g += step) tasks.push_back({&e, g, std::min(e.all_groups(), g + step)});
  }
  std::vector<std::vector<std::byte>> scratch(pool_.size());
  pool_.parallel_for(tasks.size(), 1, [&](std::size_t from, std::size_t to, unsigned worker) {
    scratch[worker].resize(largest);
    for (std::size_t i = from; i < to; ++i) {
      const Entry& e = *tasks[i].entry;
      read_groups(e, tasks[i].begin, tasks[i].end, scratch[worker].data(),
                  whole_.data() + e.offset + tasks[i].begin * e.group_bytes());
    }
  });
}

void FileSource::start_streaming(Bytes free) {
  open_direct();
  const Buffers buffers = plan_buffers(free);
  slot_memory_ = Buffer(ledger_, Tag::weights, buffers.packed * pool_.size());
  for (std::size_t i = 0; i < pool_.size(); ++i) free_slots_.push_back(slot_memory_.data() + i * buffers.packed);
  read_ahead_ = std::make_unique<ReadAhead>(ledger_, buffers.ahead, buffers.raw);
  buffer_bytes_ = buffers.bytes;
  holder_ = ledger_.add_holder({[] { return 1.0; }, [this](Bytes wanted) { return give_back(wanted); }});
}

void FileSource::stop_streaming() {
  holder_.reset();
  read_ahead_.reset();
  free_slots_.clear();
  slot_memory_ = Buffer();
  buffer_bytes_ = 0;
}

void FileSource::pin_bands(std::size_t bands) {
  const std::size_t raw = plan_buffers(0).raw;
  for (std::size_t band = bands_.size(); band < bands; ++band) {
    Bytes size = 0;
    for (Entry& e : entries_) {
      e.band_offset[band] = size;
      const std::size_t groups = e.band_begin(band + 1, step_) - e.band_begin(band, step_);
      if (!e.only_rows) size += round_up(groups * e.group_bytes(), kAlign);
    }
    Buffer buffer(ledger_, Tag::weights, band_bytes(band));
    std::vector<std::vector<std::byte>> scratch(pool_.size());
    pool_.parallel_for(entries_.size(), 1, [&](std::size_t from, std::size_t to, unsigned worker) {
      scratch[worker].resize(raw);
      for (std::size_t i = from; i < to; ++i) {
        const Entry& e = entries_[i];
        if (e.only_rows) continue;
        const std::size_t end = e.band_begin(band + 1, step_);
        std::byte* out = buffer.data() + e.band_offset[band];
        for (std::size_t g = e.band_begin(band, step_); g < end; g += step_, out += step_ * e.group_bytes())
          read_groups(e, g, std::min(end, g + step_), scratch[worker].data(), out);
      }
    });
    bands_.push_back(std::move(buffer));
  }
}

void FileSource::open_direct() {
  for (Entry& e : entries_) {
    if (e.file->descriptor() < 0) continue;  // not a file of the file system
    auto known =
        std::find_if(direct_.begin(), direct_.end(), [&](const auto& file) { return file->path() == e.file->path(); });
    if (known == direct_.end()) known = direct_.insert(known, open_file(e.file->path(), Caching::direct));
    posix_fadvise(e.file->descriptor(), 0, 0, POSIX_FADV_DONTNEED);  // what reading the header has left in the cache
    e.file = known->get();
  }
}

Bytes FileSource::give_back(Bytes wanted) {
  Bytes released = 0;
  while (released < wanted && !bands_.empty()) {
    released += bands_.back().size();
    bands_.pop_back();
  }
  return released;
}

Bytes FileSource::pinned_bytes() const {
  Bytes total = round_up(whole_.size(), kPage);
  for (const Buffer& band : bands_) total += band.size();
  return total;
}

ReadAhead::Range FileSource::range_of(const Entry& entry, std::size_t begin, std::size_t end) {
  const Weight& w = entry.weight;
  const std::size_t in_row = row_bytes(entry.file_type, w.cols), expert = begin / w.groups();
  const std::size_t row0 = begin % w.groups() * kTileRows;
  const std::size_t rows = std::min<std::size_t>(w.rows, row0 + (end - begin) * kTileRows) - row0;
  return {entry.file, entry.file_offset + (expert * w.rows + row0) * in_row, rows * in_row};
}

ReadAhead::Range FileSource::extent_of(const Entry& entry, std::size_t begin, std::size_t end) const {
  const std::size_t expert = begin / entry.weight.groups() * entry.weight.groups();
  const std::size_t first = expert + (begin - expert) / entry.extent_groups * entry.extent_groups;
  const std::size_t last = std::min(expert + entry.weight.groups(), first + entry.extent_groups);
  if (end > last) return range_of(entry, begin, end);  // a slice across two
  const std::size_t pinned = entry.band_begin(bands_.size(), step_);
  return range_of(entry, pinned <= begin ? std::max(first, pinned) : begin, last);
}

void FileSource::pack(const Entry& entry, std::span<const std::byte> rows, std::byte* out) {
  const Weight& w = entry.weight;
  const std::size_t in_row = row_bytes(entry.file_type, w.cols);
  const bool convert = w.type != entry.file_type;
  std::vector<float> converted(convert ? kTileRows * w.cols : 0);
  for (; !rows.empty(); out += entry.group_bytes()) {
    const std::size_t n = std::min(kTileRows, rows.size() / in_row);
    const std::byte* in = rows.data();
    if (convert) {
      for (std::size_t i = 0; i < n; ++i)
        dequantize_row(entry.file_type, in + i * in_row, w.cols, converted.data() + i * w.cols);
      in = reinterpret_cast<const std::byte*>(converted.data());
    }
    pack_group(w.type, w.cols, in, n, out);
    rows = rows.subspan(n * in_row);
  }
}

void FileSource::read_groups(const Entry& entry, std::size_t begin, std::size_t end, std::byte* raw, std::byte* out) {
  // Consecutive groups of an expert are consecutive rows of the file: one read.
  for (std::size_t g = begin; g < end;) {
    const std::size_t last = std::min(end, (g / entry.weight.groups() + 1) * entry.weight.groups());
    const ReadAhead::Range range = range_of(entry, g, last);
    const std::span<std::byte> rows(raw, range.size);
    range.file->read(range.offset, rows);
    pack(entry, rows, out);
    out += (last - g) * entry.group_bytes();
    g = last;
  }
}

const std::byte* FileSource::find(const Entry& entry, std::size_t begin, std::size_t end) const {
  if (whole_.size() > 0) return whole_.data() + entry.offset + begin * entry.group_bytes();
  if (entry.only_rows || bands_.empty()) return nullptr;
  std::size_t band = begin * kBands / entry.all_groups();
  while (entry.band_begin(band, step_) > begin) --band;
  while (entry.band_begin(band + 1, step_) <= begin) ++band;
  if (band >= bands_.size() || end > entry.band_begin(band + 1, step_)) return nullptr;
  return bands_[band].data() + entry.band_offset[band] + (begin - entry.band_begin(band, step_)) * entry.group_bytes();
}

WeightSlice FileSource::slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                              std::size_t group_end) {
  const Entry& entry = entries_[weight.id];
  const std::size_t begin = expert * weight.groups() + group_begin, end = begin + (group_end - group_begin);
  TileMatrix m{weight.type, std::min<std::size_t>(weight.rows, group_end * kTileRows) - group_begin * kTileRows,
               weight.cols, find(entry, begin, end)};
  if (m.data) return {m, nullptr};
  const ReadAhead::Range range = range_of(entry, begin, end);
  const ReadAhead::Lease rows = read_ahead_->get(extent_of(entry, begin, end), range.offset, range.size);
  std::shared_ptr<std::byte> slot = take_slot();
  pack(entry, std::span(rows.data, range.size), slot.get());
  m.data = slot.get();
  return {m, std::move(slot)};
}

void FileSource::row(const Weight& weight, std::size_t row, float* out) {
  const Entry& entry = entries_[weight.id];
  const std::size_t group = row / kTileRows;
  if (const std::byte* data = find(entry, group, group + 1)) {
    dequantize_packed_row({weight.type, kTileRows, weight.cols, data}, row % kTileRows, out);
    return;
  }
  std::vector<std::byte> raw(row_bytes(entry.file_type, weight.cols));
  entry.file->read(entry.file_offset + row * raw.size(), raw);
  dequantize_row(entry.file_type, raw.data(), weight.cols, out);
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
