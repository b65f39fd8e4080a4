#include "kv/kv_recall.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <tuple>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr unsigned kDepth = 64;            // reads in flight
constexpr float kLeastWeight = 1.0f / 64;  // of a tile that is worth reading, of a head's queries together
constexpr float kReplace = 1.25f;          // times the weight of what it takes the place of

/// copy(values' offset among a page's, where tiles lie together, count).
template <class Copy>
void each_tile(const KvShape& shape, Copy copy) {
  const std::size_t keys = kv_tile_values(shape.k_dim), values = kv_tile_values(shape.v_dim);
  std::size_t at = 0;
  for (std::size_t head = 0; head < shape.kv_heads; ++head)
    for (std::size_t tile = 0; tile < kPageTiles; ++tile) {
      copy(shape.offset(KvSide::keys, head) + tile * keys, at, keys);
      copy(shape.offset(KvSide::values, head) + tile * values, at + keys, values);
      at += keys + values;
    }
}

}  // namespace

void interleave_tiles(const KvShape& shape, const std::byte* page, std::byte* out, std::size_t bytes, bool back) {
  each_tile(shape, [&](std::size_t apart, std::size_t together, std::size_t count) {
    const std::size_t from = back ? together : apart, to = back ? apart : together;
    std::memcpy(out + to * sizeof(bf16_t), page + from * sizeof(bf16_t), count * sizeof(bf16_t));
  });
  std::memcpy(out + shape.page_bytes(), page + shape.page_bytes(), bytes - shape.page_bytes());
}

KvRecall::KvRecall(Ledger& ledger, std::span<const KvShape> shapes, Bytes bytes)
    : shapes_(shapes.begin(), shapes.end()), layers_(shapes.size()), reader_(AsyncReader::create(kDepth)) {
  std::size_t size = 0;
  for (std::size_t layer = 0; layer < shapes_.size(); ++layer) {
    if (shapes_[layer].window > 0 || shapes_[layer].kv_heads == 0) continue;
    layers_[layer].resize(shapes_[layer].kv_heads);
    // Pages that are whole blocks, one after the other, have their tiles at the beginning of blocks.
    const std::size_t tile = tile_bytes(shapes_[layer]);
    size = std::max(size, tile % kDirectBlock == 0 ? tile : FileRange::blocks_bytes(tile));
  }
  memory_ = Buffer(ledger, Tag::kv, std::max<Bytes>(bytes, size) / size * size);
  for (std::size_t at = 0; at < memory_.size(); at += size) slots_.push_back({memory_.data() + at});
}

const bf16_t* KvRecall::find(std::size_t layer, std::size_t head, std::size_t tile) const {
  const auto& slots = layers_[layer][head].slot_of;
  if (tile >= slots.size() || slots[tile] == kNone) return nullptr;
  return reinterpret_cast<const bf16_t*>(slots_[slots[tile]].memory + slots_[slots[tile]].shift);
}

void KvRecall::begin(std::size_t layer, std::size_t tiles) {
  wait();
  const std::size_t parts = (tiles + kPartTiles - 1) / kPartTiles, values = parts * shapes_[layer].group;
  for (Head& head : layers_[layer]) {
    head.most.assign(values, -std::numeric_limits<float>::infinity());
    head.sums.assign(values * kPartTiles, 0);
    if (head.slot_of.size() < parts * kPartTiles) head.slot_of.resize(parts * kPartTiles, kNone);
  }
}

void KvRecall::wait() {
  while (reader_->in_flight() > 0) take_results();
  if (!error_.empty()) fail<IoError>("{}", error_);
}

void KvRecall::note(std::size_t layer, std::size_t head, std::size_t part, std::span<const AttentionState> states,
                    const float* tile_sums) {
  Head& to = layers_[layer][head];
  for (std::size_t q = 0; q < states.size(); ++q) to.most[part * states.size() + q] = states[q].max;
  std::copy_n(tile_sums, states.size() * kPartTiles, to.sums.data() + part * states.size() * kPartTiles);
}

std::vector<float> KvRecall::weights(const Head& head, std::size_t group) const {
  const std::size_t parts = head.most.size() / group;
  std::vector<float> weights(parts * kPartTiles), factors(parts);
  for (std::size_t q = 0; q < group; ++q) {
    float top = -std::numeric_limits<float>::infinity(), total = 0;
    for (std::size_t part = 0; part < parts; ++part) top = std::max(top, head.most[part * group + q]);
    for (std::size_t part = 0; part < parts; ++part) {
      factors[part] = std::exp(head.most[part * group + q] - top);
      float sum = 0;
      for (std::size_t t = 0; t < kPartTiles; ++t) sum += head.sums[(part * group + q) * kPartTiles + t];
      total += factors[part] * sum;
    }
    for (std::size_t part = 0; part < parts; ++part)
      for (std::size_t t = 0; t < kPartTiles; ++t)
        weights[part * kPartTiles + t] += factors[part] / total * head.sums[(part * group + q) * kPartTiles + t];
  }
  return weights;
}

std::vector<std::pair<std::size_t, std::size_t>> KvRecall::choose(
    std::size_t layer, std::size_t first, std::size_t end,
    const std::function<FileRange(std::size_t head, std::size_t tile)>& where) {
  struct Candidate {
    std::size_t head, tile;
    float weight;
  };
  std::vector<Candidate> candidates;
  for (std::size_t h = 0; h < layers_[layer].size(); ++h) {
    const Head& head = layers_[layer][h];
    const std::vector<float> weight = weights(head, shapes_[layer].group);
    for (std::size_t tile = first; tile < end; ++tile)
      if (head.slot_of[tile] != kNone)
        slots_[head.slot_of[tile]].weight = weight[tile];
      else if (weight[tile] > kLeastWeight)
        candidates.push_back({h, tile, weight[tile]});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(b.weight, a.head, a.tile) < std::tie(a.weight, b.head, b.tile);
  });
  // Those that weigh least give way.
  std::vector<std::size_t> victims(slots_.size());
  std::iota(victims.begin(), victims.end(), std::size_t{0});
  const std::size_t most = std::min(candidates.size(), victims.size());
  std::partial_sort(victims.begin(), victims.begin() + static_cast<std::ptrdiff_t>(most), victims.end(),
                    [&](std::size_t a, std::size_t b) { return slots_[a].weight < slots_[b].weight; });
  std::vector<std::pair<std::size_t, std::size_t>> changed;
  for (std::size_t i = 0; i < most; ++i) {
    const Candidate& new_one = candidates[i];
    Slot& slot = slots_[victims[i]];
    if (new_one.weight < kReplace * slot.weight) break;
    if (slot.weight >= 0) free(slot);
    slot.layer = layer, slot.head = new_one.head, slot.tile = new_one.tile, slot.weight = new_one.weight;
    layers_[layer][slot.head].slot_of[slot.tile] = static_cast<std::uint32_t>(victims[i]);
    read(slot, where(slot.head, slot.tile));
    changed.emplace_back(slot.head, slot.tile / kPartTiles);
  }
  std::sort(changed.begin(), changed.end());
  changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
  return changed;
}

void KvRecall::free(Slot& slot) {
  layers_[slot.layer][slot.head].slot_of[slot.tile] = kNone;
  slot.weight = -1;
}

void KvRecall::read(Slot& slot, const FileRange& tile) {
  const FileRange blocks = tile.whole_blocks();
  slot.shift = static_cast<std::size_t>(tile.offset - blocks.offset);
  while (reader_->in_flight() >= kDepth) take_results();
  reader_->submit({blocks.file, blocks.offset, {slot.memory, blocks.size}});
}

void KvRecall::take_results() {
  for (const ReadResult& result : reader_->wait())
    if (!result.error.empty()) error_ = result.error;
}

void KvRecall::forget(std::size_t pages) noexcept {
  for (Slot& slot : slots_)
    if (slot.weight >= 0 && slot.tile >= pages * kPageTiles) free(slot);
}

}  // namespace snug
