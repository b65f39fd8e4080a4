#include "kv/block_codec.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.hpp"
#include "base/units.hpp"
#include "kernels/kv_blocks.hpp"
#include "kv/heaviest.hpp"

namespace snug {

namespace {

static_assert(KvBlocks::kTokens == kPageTokens);

class BlockCodec final : public KvCodec {
public:
  BlockCodec(KvSide side, std::shared_ptr<const KvModel> model, bool rearrange) : model_(std::move(model)) {
    for (const KvShape& shape : model_->shapes) {
      layouts_.push_back({side == KvSide::keys, rearrange, shape.dim(side)});
      if (layouts_.back().blocks() > KvBlocks::kMostBlocks)
        fail<UsageError>("block floating point is for heads of at most {} channels",
                         KvBlocks::kBlock * KvBlocks::kMostBlocks);
    }
  }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * head_bytes(layouts_[layer]);
  }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const KvBlocks& layout = layouts_[place.layer];
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head)
      encode_head(layout, heads[head], page + head * head_bytes(layout));
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const KvBlocks& layout = layouts_[place.layer];
    kernels().unpack_kv_blocks(page + head * head_bytes(layout), layout, tiles);
  }

private:
  static std::size_t head_bytes(const KvBlocks& layout) { return round_up(layout.bytes(), 16); }

  static float value(const KvBlocks& layout, const bf16_t* tiles, std::size_t token, std::size_t channel) {
    const std::size_t slot = token % kTileTokens;
    return float_of(tiles[token / kTileTokens * kv_tile_values(layout.dim) +
                          (layout.keys ? key_index(slot, channel) : value_index(slot, channel, layout.dim))]);
  }

  /// The block of each channel.
  static std::vector<std::size_t> arrange(const KvBlocks& layout, const bf16_t* tiles) {
    std::vector<std::size_t> block(layout.dim);
    if (!layout.rearranged) {
      for (std::size_t c = 0; c < layout.dim; ++c) block[c] = c / KvBlocks::kBlock;
      return block;
    }
    std::vector<float> most(layout.dim);
    for (std::size_t c = 0; c < layout.dim; ++c)
      for (std::size_t token = 0; token < kPageTokens; ++token)
        most[c] = std::max(most[c], std::abs(value(layout, tiles, token, c)));
    const std::vector<std::size_t> order = heaviest_first(most);
    for (std::size_t i = 0; i < layout.dim; ++i) block[order[i]] = i / KvBlocks::kBlock;
    return block;
  }

  static void encode_head(const KvBlocks& layout, const bf16_t* tiles, std::byte* page) {
    std::memset(page, 0, head_bytes(layout));
    const std::vector<std::size_t> block = arrange(layout, tiles);
    for (std::size_t c = 0; layout.rearranged && c < layout.dim; ++c) page[c] = static_cast<std::byte>(block[c]);
    for (std::size_t token = 0; token < kPageTokens; ++token) {
      float most[KvBlocks::kMostBlocks] = {}, inverse[KvBlocks::kMostBlocks] = {};
      for (std::size_t c = 0; c < layout.dim; ++c)
        most[block[c]] = std::max(most[block[c]], std::abs(value(layout, tiles, token, c)));
      for (std::size_t b = 0; b < layout.blocks(); ++b) {
        // The largest has mantissas 4 to 7: two bits and a half behind its leading one, and the sign.
        const auto leading = static_cast<int>(std::bit_cast<std::uint32_t>(most[b]) >> 23), exponent = leading - 2;
        if (exponent <= 0) continue;  // smaller than any normal value: 0
        page[layout.exponents() + layout.exponent_index(token, b)] = static_cast<std::byte>(exponent);
        inverse[b] = std::ldexp(1.0f, 127 - exponent);
      }
      for (std::size_t c = 0; c < layout.dim; ++c) {
        const float steps = std::round(value(layout, tiles, token, c) * inverse[block[c]]);
        const auto code = static_cast<unsigned>(std::clamp(steps, -8.0f, 7.0f) + 8.0f);
        page[layout.mantissas() + layout.mantissa_byte(token, c)] |=
            static_cast<std::byte>(layout.upper(token, c) ? code << 4 : code);
      }
    }
  }

  std::shared_ptr<const KvModel> model_;
  std::vector<KvBlocks> layouts_;  ///< of each layer
};

}  // namespace

std::unique_ptr<KvCodec> make_block_codec(KvSide side, std::shared_ptr<const KvModel> model, bool rearrange) {
  return std::make_unique<BlockCodec>(side, std::move(model), rearrange);
}

}  // namespace snug
