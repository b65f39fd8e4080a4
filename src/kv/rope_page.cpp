#include "kv/rope_page.hpp"

#include <cmath>

#include "base/error.hpp"

namespace snug {

namespace {
constexpr std::size_t kMaxDim = 512;
}

KvLines page_lines(KvSide side, std::size_t dim) {
  if (side == KvSide::keys) return {dim / 2, kPageTiles, kv_tile_values(dim), 2 * kTileTokens};
  return {kPageTokens / 2, dim / 16, 32, 2 * dim};
}

RopePages::RopePages(const KvModel& model)
    : tables_(model.shapes.size()), dims_(model.shapes.size()), value_dims_(model.shapes.size()) {
  for (std::size_t layer = 0; layer < model.shapes.size(); ++layer) {
    dims_[layer] = model.shapes[layer].k_dim;
    value_dims_[layer] = model.shapes[layer].v_dim;
    if (model.shapes[layer].kv_heads == 0 || layer >= model.ropes.size()) continue;
    const KvRope& rope = model.ropes[layer];
    const std::size_t pairs = rope.inverse_frequency.size();
    if (pairs == 0) continue;
    if (dims_[layer] > kMaxDim) fail("heads of {} channels: pages are rotated up to {}", dims_[layer], kMaxDim);
    for (std::size_t other = 0; other < layer && !tables_[layer]; ++other) {
      const auto& table = tables_[other];
      if (table && table->rope.inverse_frequency == rope.inverse_frequency && table->rope.magnitude == rope.magnitude &&
          table->rope.split_half == rope.split_half)
        tables_[layer] = table;
    }
    if (tables_[layer]) continue;
    auto table = std::make_shared<Table>();
    table->rope = rope;
    for (std::size_t i = 0; i < pairs; ++i)
      for (std::size_t t = 0; t < kPageTokens; ++t) {
        const double angle = static_cast<double>(t) * rope.inverse_frequency[i];
        table->offset_cos.push_back(static_cast<float>(std::cos(angle)));
        table->offset_sin.push_back(static_cast<float>(std::sin(angle)));
      }
    tables_[layer] = std::move(table);
  }
}

const float* RopePages::Table::block(std::size_t index) const {
  if (index >= kBlocks) fail("keys beyond position {} cannot be rotated", kBlocks * kBlockPages * kPageTokens);
  if (const float* there = blocks[index].load(std::memory_order_acquire)) return there;
  const std::lock_guard lock(mutex);
  if (const float* there = blocks[index].load(std::memory_order_relaxed)) return there;
  const std::size_t pairs = rope.inverse_frequency.size(), half = kBlockPages * pairs;
  auto angles = std::make_unique<float[]>(2 * half);
  for (std::size_t page = 0; page < kBlockPages; ++page)
    for (std::size_t i = 0; i < pairs; ++i) {
      const auto position = static_cast<double>((index * kBlockPages + page) * kPageTokens);
      const double angle = position * rope.inverse_frequency[i];
      angles[page * pairs + i] = static_cast<float>(std::cos(angle)) * rope.magnitude;
      angles[half + page * pairs + i] = static_cast<float>(std::sin(angle)) * rope.magnitude;
    }
  blocks[index].store(angles.get(), std::memory_order_release);
  memory.push_back(std::move(angles));
  return memory.back().get();
}

KvRotation RopePages::at(std::size_t layer, std::size_t position) const {
  const Table* table = tables_[layer].get();
  if (!table) return {};
  const std::size_t page = position / kPageTokens, pairs = table->rope.inverse_frequency.size();
  const float* cos = table->block(page / kBlockPages) + page % kBlockPages * pairs;
  const float magnitude = table->rope.magnitude;
  return {pairs,
          table->rope.split_half,
          cos,
          cos + kBlockPages * pairs,
          table->offset_cos.data(),
          table->offset_sin.data(),
          1 / (magnitude * magnitude)};
}

void RopePages::turn_back(std::size_t layer, std::size_t position, const bf16_t* tiles, float* lines) const {
  kernels().tiles_to_lines(tiles, page_lines(KvSide::keys, dims_[layer]), lines);
  kernels().rotate_lines(lines, at(layer, position), true);
}

void RopePages::turn(std::size_t layer, std::size_t position, float* lines, bf16_t* tiles) const {
  kernels().rotate_lines(lines, at(layer, position), false);
  kernels().lines_to_tiles(lines, page_lines(KvSide::keys, dims_[layer]), tiles);
}

void RopePages::channels_of(KvSide side, std::size_t layer, std::size_t position, const bf16_t* tiles,
                            float* channels) const {
  if (side == KvSide::keys) return turn_back(layer, position, tiles, channels);
  const std::size_t dim = value_dims_[layer];
  std::vector<float> rows(kPageTokens * dim);
  kernels().tiles_to_lines(tiles, page_lines(side, dim), rows.data());
  for (std::size_t d = 0; d < dim; ++d)
    for (std::size_t t = 0; t < kPageTokens; ++t) channels[d * kPageTokens + t] = rows[t * dim + d];
}

void RopePages::tiles_of(KvSide side, std::size_t layer, std::size_t position, float* channels, bf16_t* tiles) const {
  if (side == KvSide::keys) return turn(layer, position, channels, tiles);
  const std::size_t dim = value_dims_[layer];
  std::vector<float> rows(kPageTokens * dim);
  for (std::size_t d = 0; d < dim; ++d)
    for (std::size_t t = 0; t < kPageTokens; ++t) rows[t * dim + d] = channels[d * kPageTokens + t];
  kernels().lines_to_tiles(rows.data(), page_lines(side, dim), tiles);
}

void RopePages::turn_tiles(std::size_t layer, std::size_t position, bf16_t* tiles) const {
  if (!tables_[layer]) return;
  const KvRotation rotation = at(layer, position);
  if (!rotation.split_half || rotation.pairs % 2 == 0) return kernels().rotate_key_tiles(tiles, dims_[layer], rotation);
  alignas(64) float lines[kPageTokens * kMaxDim];
  kernels().tiles_to_lines(tiles, page_lines(KvSide::keys, dims_[layer]), lines);
  turn(layer, position, lines, tiles);
}

}  // namespace snug
