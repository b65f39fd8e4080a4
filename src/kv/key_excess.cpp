#include "kv/key_excess.hpp"

#include <algorithm>

#include "kv/rope_page.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostPages = 64;

/// Sums over tokens, of a channel.
struct Moments {
  double sum = 0, squares = 0;

  void add(const float* line) {
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      sum += static_cast<double>(line[t]);
      squares += static_cast<double>(line[t]) * static_cast<double>(line[t]);
    }
  }
  double variance(double count) const { return squares / count - sum / count * (sum / count); }
};

std::vector<float> excess_of(const KvCodec& codec, const KvLearning& from, const RopePages& ropes, std::size_t layer) {
  const KvShape& shape = from.model.shapes[layer];
  const std::size_t dim = shape.k_dim, channels = shape.kv_heads * dim, page_values = kPageTokens * dim;
  const auto keys = from.samples.layers[layer].keys;
  // The first pages of a window are not coded.
  std::vector<std::size_t> pages;
  for (std::size_t first = 0; first + kPageTokens <= from.samples.tokens; first += kPageTokens)
    if (first % from.samples.context >= kFirstPages * kPageTokens) pages.push_back(first);
  const std::size_t step = std::max<std::size_t>(1, pages.size() / kMostPages);
  std::vector<Moments> before(channels), after(channels);
  std::vector<float> lines(page_values);
  std::vector<bf16_t> tiles(shape.kv_heads * page_values), decoded(page_values);
  std::vector<const bf16_t*> heads;
  for (std::size_t head = 0; head < shape.kv_heads; ++head) heads.push_back(&tiles[head * page_values]);
  std::vector<std::byte> coded(codec.page_bytes(layer));
  std::size_t tokens = 0;
  for (std::size_t p = 0; p < pages.size(); p += step, tokens += kPageTokens) {
    const KvPlace place{layer, pages[p] % from.samples.context / kPageTokens * kPageTokens};
    for (std::size_t c = 0; c < channels; ++c) {
      float* line = &lines[c % dim * kPageTokens];
      for (std::size_t t = 0; t < kPageTokens; ++t) line[t] = float_of(keys[(pages[p] + t) * channels + c]);
      before[c].add(line);
      if ((c + 1) % dim == 0)
        ropes.tiles_of(KvSide::keys, layer, place.position, lines.data(), &tiles[c / dim * page_values]);
    }
    codec.encode(place, heads.data(), coded.data());
    for (std::size_t head = 0; head < shape.kv_heads; ++head) {
      codec.decode(place, head, coded.data(), decoded.data());
      ropes.channels_of(KvSide::keys, layer, place.position, decoded.data(), lines.data());
      for (std::size_t d = 0; d < dim; ++d) after[head * dim + d].add(&lines[d * kPageTokens]);
    }
  }
  std::vector<float> excess(channels);
  const double count = static_cast<double>(std::max<std::size_t>(tokens, 1));
  for (std::size_t c = 0; c < channels; ++c)
    excess[c] = static_cast<float>(after[c].variance(count) - before[c].variance(count));
  const KvRope& rope = from.model.ropes[layer];
  const std::size_t pairs = rope.inverse_frequency.size();
  for (std::size_t head = 0; head < shape.kv_heads; ++head)
    for (std::size_t i = 0; i < pairs; ++i) {
      float &a = excess[head * dim + rope.channel(i, 0)], &b = excess[head * dim + rope.channel(i, 1)];
      a = b = (a + b) / 2;
    }
  return excess;
}

}  // namespace

void add_key_excess(const KvCodec& codec, const KvLearning& from, KvTables& tables) {
  const RopePages ropes(from.model);
  std::vector<std::vector<float>> found(from.model.shapes.size());
  from.pool.parallel_for(found.size(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t layer = begin; layer < end; ++layer)
      if (from.model.shapes[layer].kv_heads > 0) found[layer] = excess_of(codec, from, ropes, layer);
  });
  for (std::size_t layer = 0; layer < found.size(); ++layer)
    if (!found[layer].empty()) tables.add(layer, kKeyExcess, std::move(found[layer]));
}

}  // namespace snug
