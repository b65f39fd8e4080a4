#include "kv/think_codec.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/units.hpp"
#include "kv/heaviest.hpp"
#include "kv/observed_queries.hpp"
#include "kv/plain_codec.hpp"
#include "kv/rope_page.hpp"

namespace snug {

namespace {

/// How a head's page lies in memory: a bit for each channel that stays; of the others the mean, bf16; then per tile
/// bf16[kept][16 tokens] in order of channels, but the two of a pair that both stay as the tile has them.
struct Layout {
  std::size_t dim, kept;

  explicit Layout(std::size_t k_dim) : dim(k_dim), kept(k_dim * 3 / 5) {}
  std::size_t means() const { return round_up((dim + 7) / 8, sizeof(bf16_t)); }
  std::size_t lines() const { return means() + (dim - kept) * sizeof(bf16_t); }
  std::size_t bytes() const { return lines() + kept * kPageTokens * sizeof(bf16_t); }
};

/// Which channels of a pair stay.
enum Pair : std::uint8_t { kNone, kEven, kOdd, kBoth };

/// f(pair, which of its channels stay, how many channels before it do).
template <class F>
void for_each_pair(const Layout& layout, const std::byte* page, F&& f) {
  std::size_t used = 0;
  for (std::size_t p = 0; p < layout.dim / 2; ++p) {
    const auto bits = std::to_integer<unsigned>(page[p / 4]) >> p % 4 * 2 & kBoth;
    const auto count = static_cast<std::size_t>(std::popcount(bits));
    // A damaged page must not lead beyond its end.
    const bool fits = used + count <= layout.kept;
    f(p, fits ? static_cast<Pair>(bits) : kNone, used);
    used += fits ? count : 0;
  }
}

class ThinkCodec final : public KvCodec {
public:
  explicit ThinkCodec(std::shared_ptr<const KvModel> model) : model_(std::move(model)) {
    for (const KvShape& shape : model_->shapes) layouts_.emplace_back(shape.k_dim);
  }
  bool observes() const override { return true; }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * layouts_[layer].bytes();
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const Layout& layout = layouts_[place.layer];
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head, page += layout.bytes()) {
      choose(place, head, heads[head], page);
      auto* lines = reinterpret_cast<bf16_t*>(page + layout.lines());
      for_each_pair(layout, page, [&](std::size_t p, Pair pair, std::size_t used) {
        for (std::size_t t = 0; t < kPageTiles; ++t) {
          const bf16_t* from = heads[head] + t * kv_tile_values(layout.dim) + p * 2 * kTileTokens;
          bf16_t* to = lines + (t * layout.kept + used) * kTileTokens;
          if (pair == kBoth)
            std::memcpy(to, from, 2 * kTileTokens * sizeof(bf16_t));
          else if (pair != kNone)
            for (std::size_t i = 0; i < kTileTokens; ++i) to[i] = from[2 * i + (pair == kOdd)];
        }
      });
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const Layout& layout = layouts_[place.layer];
    page += head * layout.bytes();
    const auto* means = reinterpret_cast<const bf16_t*>(page + layout.means());
    const auto* lines = reinterpret_cast<const bf16_t*>(page + layout.lines());
    for_each_pair(layout, page, [&](std::size_t p, Pair pair, std::size_t used) {
      const auto mean = [&](std::size_t before) { return means[std::min(before, layout.dim - layout.kept - 1)]; };
      const bf16_t even = mean(2 * p - used), odd = mean(2 * p - used + (pair == kNone));
      for (std::size_t t = 0; t < kPageTiles; ++t) {
        const bf16_t* from = lines + (t * layout.kept + used) * kTileTokens;
        bf16_t* to = tiles + t * kv_tile_values(layout.dim) + p * 2 * kTileTokens;
        if (pair == kBoth) {
          std::memcpy(to, from, 2 * kTileTokens * sizeof(bf16_t));
          continue;
        }
        // Pairs as words: the loop becomes a few vector instructions.
        std::uint32_t words[kTileTokens];
        const std::uint32_t whole = std::uint32_t{odd} << 16 | even, lower = std::uint32_t{odd} << 16, upper = even;
        for (std::size_t i = 0; i < kTileTokens; ++i)
          words[i] = pair == kEven ? lower | from[i] : pair == kOdd ? std::uint32_t{from[i]} << 16 | upper : whole;
        std::memcpy(to, words, sizeof words);
      }
    });
  }

private:
  /// Writes which channels of a head stay, and the means of the others.
  void choose(KvPlace place, std::size_t head, const bf16_t* tiles, std::byte* page) const {
    const Layout& layout = layouts_[place.layer];
    const std::size_t dim = layout.dim;
    const std::vector<float> queries = observed_queries(place.observed, model_->shapes[place.layer], head);
    std::vector<float> lines(dim * kPageTokens), part(dim), mean(dim);
    for (std::size_t q = 0; q < queries.size(); q += dim)
      for (std::size_t d = 0; d < dim; ++d) part[d] += queries[q + d] * queries[q + d];
    kernels().tiles_to_lines(tiles, page_lines(KvSide::keys, dim), lines.data());
    for (std::size_t d = 0; d < dim; ++d) {
      float* line = lines.data() + d * kPageTokens;
      mean[d] = std::accumulate(line, line + kPageTokens, 0.0f) / kPageTokens;
      for (std::size_t t = 0; t < kPageTokens; ++t) line[t] -= mean[d];
      part[d] *= kernels().dot(line, line, kPageTokens);
    }
    const std::vector<std::size_t> order = heaviest_first(part);
    std::vector<bool> stays(dim);
    for (std::size_t i = 0; i < layout.kept; ++i) stays[order[i]] = true;
    std::memset(page, 0, layout.means());
    auto* means = reinterpret_cast<bf16_t*>(page + layout.means());
    for (std::size_t d = 0; d < dim; ++d)
      if (stays[d])
        page[d / 8] |= std::byte{1} << d % 8;
      else
        kernels().to_bf16(&mean[d], 1, means++);
  }

  std::shared_ptr<const KvModel> model_;
  std::vector<Layout> layouts_;  ///< of each layer
};

}  // namespace

std::unique_ptr<KvCodec> make_think_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  if (side == KvSide::values) return make_plain_codec(side, std::move(model));
  return std::make_unique<ThinkCodec>(std::move(model));
}

}  // namespace snug
