#include "weights/neuron_cache.hpp"

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr unsigned kDepth = 16;
/// What lies between two neurons is read along when that costs less than another request; reads end at a size that
/// costs the disk's full speed.
constexpr std::size_t kGapBytes = 16 << 10, kReadBytes = 128 << 10;

std::size_t staging_slot_bytes(std::size_t bundle) {
  return FileRange::blocks_bytes(std::max(kReadBytes, bundle));
}

}  // namespace

/// Staging, and the lists.
Bytes NeuronCache::fixed_bytes(const FfnFile& file) {
  Bytes index = 0;
  for (const std::size_t n : file.shape().neurons) index += n * 4 * sizeof(std::uint32_t);
  return kDepth * staging_slot_bytes(file.shape().bundle_bytes()) + round_up(index, kDirectBlock);
}

Bytes NeuronCache::least_bytes(const FfnFile& file, float share, Most most) {
  Bytes total = 0;
  for (const std::size_t n : file.shape().neurons) total += most(n, share) * file.shape().bundle_bytes();
  return fixed_bytes(file) + round_up(total, kDirectBlock);
}

Bytes NeuronCache::most_bytes(const FfnFile& file) {
  return least_bytes(file, 1, [](std::size_t n, float) { return n; });
}

NeuronCache::NeuronCache(Ledger& ledger, const FfnFile& file, float share, Most most, Bytes capacity)
    : file_(file), bundle_(file.shape().bundle_bytes()), staging_slot_(staging_slot_bytes(bundle_)) {
  const Bytes least = least_bytes(file, share, most), all = most_bytes(file);
  const Bytes given = std::clamp(capacity, least, all);
  // Beyond what every layer needs, each is given the same part of the rest of its neurons.
  const double part = all > least ? static_cast<double>(given - least) / static_cast<double>(all - least) : 1;
  std::size_t slots = 0;
  for (const std::size_t n : file.shape().neurons) {
    Layer& layer = layers_.emplace_back();
    const std::size_t needed = most(n, share);
    layer.slots = needed + static_cast<std::size_t>(part * static_cast<double>(n - needed));
    layer.slot_of.assign(n, kNone);
    layer.neuron_of.assign(layer.slots, kNone);
    layer.older = layer.newer = layer.neuron_of;
    slots += layer.slots;
  }
  index_memory_ = ledger.reserve(Tag::weights, fixed_bytes(file) - kDepth * staging_slot_);
  staging_ = Buffer(ledger, Tag::weights, kDepth * staging_slot_);
  memory_ = Buffer(ledger, Tag::weights, slots * bundle_);
  std::byte* at = memory_.data();
  for (Layer& layer : layers_) {
    layer.memory = at;
    at += layer.slots * bundle_;
  }
  reader_ = AsyncReader::create(kDepth);
}

NeuronCache::~NeuronCache() {
  reader_.reset();  // waits for what is in flight
}

void NeuronCache::unlink(Layer& layer, std::uint32_t slot) {
  const std::uint32_t older = layer.older[slot], newer = layer.newer[slot];
  (older == kNone ? layer.oldest : layer.newer[older]) = newer;
  (newer == kNone ? layer.newest : layer.older[newer]) = older;
}

void NeuronCache::append(Layer& layer, std::uint32_t slot) {
  layer.older[slot] = layer.newest;
  layer.newer[slot] = kNone;
  (layer.newest == kNone ? layer.oldest : layer.newer[layer.newest]) = slot;
  layer.newest = slot;
}

/// An empty slot, or the one that was not used for the longest time.
std::uint32_t NeuronCache::take_slot(Layer& layer) {
  if (layer.filled < layer.slots) return static_cast<std::uint32_t>(layer.filled++);
  const std::uint32_t slot = layer.oldest;
  unlink(layer, slot);
  if (layer.neuron_of[slot] != kNone) layer.slot_of[layer.neuron_of[slot]] = kNone;
  return slot;
}

std::span<const std::byte* const> NeuronCache::fetch(std::size_t index, std::span<const std::uint32_t> neurons) {
  Layer& layer = layers_[index];
  missing_.clear();
  for (const std::uint32_t n : neurons) {
    const std::uint32_t slot = layer.slot_of[n];
    if (slot == kNone) {
      missing_.push_back(n);
      continue;
    }
    unlink(layer, slot);
    append(layer, slot);
  }
  stats_.chosen += neurons.size();
  stats_.hits += neurons.size() - missing_.size();
  // What is used now stands at the end of the list: the slots taken are those of others.
  for (const std::uint32_t n : missing_) {
    const std::uint32_t slot = take_slot(layer);
    layer.slot_of[n] = slot;
    layer.neuron_of[slot] = n;
    append(layer, slot);
  }
  if (!missing_.empty()) read_missing(index);
  found_.clear();
  for (const std::uint32_t n : neurons) found_.push_back(layer.memory + layer.slot_of[n] * bundle_);
  return found_;
}

void NeuronCache::plan_reads(std::size_t layer) {
  reads_.clear();
  for (std::size_t i = 0, end; i < missing_.size(); i = end) {
    end = i + 1;
    while (end < missing_.size() && (missing_[end] - missing_[end - 1] - 1) * bundle_ <= kGapBytes &&
           (missing_[end] - missing_[i] + 1) * bundle_ <= kReadBytes)
      ++end;
    const FileRange range = file_.bundles(layer, missing_[i], missing_[end - 1] + 1);
    reads_.push_back({range.whole_blocks(), i, end, range.offset});
  }
}

void NeuronCache::read_missing(std::size_t index) {
  Layer& layer = layers_[index];
  plan_reads(index);
  std::string error;
  std::size_t next = 0;
  std::vector<std::size_t> read_in(kDepth);  // by place in staging
  const auto submit = [&](std::size_t staged) {
    if (next == reads_.size() || !error.empty()) return;
    const FileRange& r = reads_[next].range;
    read_in[staged] = next++;
    ++stats_.reads;
    stats_.bytes_read += r.size;
    reader_->submit({r.file, r.offset, {staging_.data() + staged * staging_slot_, r.size}, staged});
  };
  for (std::size_t staged = 0; staged < kDepth; ++staged) submit(staged);
  while (reader_->in_flight() > 0)
    for (const ReadResult& result : reader_->wait()) {
      if (!result.error.empty())
        error = result.error;
      else
        place(layer, reads_[read_in[result.tag]], staging_.data() + result.tag * staging_slot_);
      submit(result.tag);
    }
  if (error.empty()) return;
  for (const std::uint32_t n : missing_) {  // none of them counts as read
    layer.neuron_of[layer.slot_of[n]] = kNone;
    layer.slot_of[n] = kNone;
  }
  fail<IoError>("{}", error);
}

void NeuronCache::place(Layer& layer, const Read& read, const std::byte* data) {
  for (std::size_t i = read.begin; i < read.end; ++i) {
    const std::size_t at = read.first - read.range.offset + (missing_[i] - missing_[read.begin]) * bundle_;
    std::memcpy(layer.memory + layer.slot_of[missing_[i]] * bundle_, data + at, bundle_);
  }
}

}  // namespace snug
