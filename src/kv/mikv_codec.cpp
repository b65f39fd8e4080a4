#include "kv/mikv_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "base/error.hpp"
#include "kernels/kv_mixed.hpp"
#include "kv/heaviest.hpp"
#include "kv/observed_queries.hpp"
#include "kv/rope_page.hpp"
#include "kv/tile_rows.hpp"

namespace snug {

namespace {

constexpr float kLevels = 3;
constexpr std::size_t kMaxDim = 512;  // what kernels unpack
static_assert(KvMixed::kKept == kImportantTokens);

void encode_token(const float* x, std::size_t dim, std::byte* out) {
  for (std::size_t first = 0; first < dim; first += KvMixed::kGroup) {
    const std::size_t n = std::min(KvMixed::kGroup, dim - first);
    const auto [least, most] = std::minmax_element(x + first, x + first + n);
    const float wanted[2] = {(*most - *least) / kLevels, *least};
    bf16_t head[2];
    kernels().to_bf16(wanted, 2, head);
    std::memcpy(out, head, sizeof head);
    out += sizeof head;
    const float inverse = float_of(head[0]) >= std::numeric_limits<float>::min() ? 1 / float_of(head[0]) : 0;
    for (std::size_t i = 0; i < n; i += 16, out += sizeof(std::uint32_t)) {
      std::uint32_t word = 0;
      for (std::size_t lane = 0; lane < 16; ++lane) {
        const float code = std::clamp(std::round((x[first + i + lane] - float_of(head[1])) * inverse), 0.0f, kLevels);
        word |= static_cast<std::uint32_t>(code) << 2 * lane;
      }
      std::memcpy(out, &word, sizeof word);
    }
  }
}

/// A bit for each important token. lines: keys, f32[k_dim][64].
std::uint64_t important_tokens(const std::vector<float>& queries, const std::vector<float>& lines, std::size_t dim) {
  const std::size_t count = queries.size() / dim;
  std::vector<float> scores(count * kPageTokens), received(kPageTokens);
  kernels().add_product(queries.data(), lines.data(), count, dim, kPageTokens, scores.data());
  for (std::size_t q = 0; q < count; ++q) {
    kernels().softmax(scores.data() + q * kPageTokens, kPageTokens);
    kernels().add(received.data(), scores.data() + q * kPageTokens, kPageTokens);
  }
  const std::vector<std::size_t> order = heaviest_first(received);
  std::uint64_t chosen = 0;
  for (std::size_t i = 0; i < kImportantTokens; ++i) chosen |= std::uint64_t{1} << order[i];
  return chosen;
}

/// Chooses what stands between keys and what is coded: k = coded * factor + mean, in each channel. lines: keys,
/// f32[k_dim][64]; important tokens do not count.
void write_balance(const std::vector<float>& queries, const std::vector<float>& lines, std::uint64_t important,
                   const KvMixed& layout, std::byte* page) {
  const std::size_t dim = layout.dim;
  std::vector<float> most_query(dim), factor(dim, 1), mean(dim);
  for (std::size_t i = 0; i < queries.size(); ++i)
    most_query[i % dim] = std::max(most_query[i % dim], std::abs(queries[i]));
  for (std::size_t d = 0; d < dim; ++d) {
    std::vector<float> line;
    for (std::size_t t = 0; t < kPageTokens; ++t)
      if (!(important >> t & 1)) line.push_back(lines[d * kPageTokens + t]);
    for (const float x : line) mean[d] += x / KvMixed::kCoded;
    float most = 0;
    for (const float x : line) most = std::max(most, std::abs(x - mean[d]));
    if (most > 0 && most_query[d] > 0) factor[d] = std::sqrt(most / most_query[d]);
  }
  kernels().to_bf16(factor.data(), dim, reinterpret_cast<bf16_t*>(page + layout.factors()));
  kernels().to_bf16(mean.data(), dim, reinterpret_cast<bf16_t*>(page + layout.means()));
}

/// The same as it is read.
struct Balance {
  std::vector<float> factor, mean;

  Balance(const KvMixed& layout, const std::byte* page) : factor(layout.dim), mean(layout.dim) {
    kernels().from_bf16(reinterpret_cast<const bf16_t*>(page + layout.factors()), layout.dim, factor.data());
    kernels().from_bf16(reinterpret_cast<const bf16_t*>(page + layout.means()), layout.dim, mean.data());
  }
};

/// Variances of the errors of coded keys, over all tokens of the page: what is uniform within a step has a twelfth of
/// its square.
void write_excess(const KvMixed& layout, const Balance& balance, std::byte* page) {
  auto* excess = reinterpret_cast<float*>(page + KvMixed::excess());
  const std::byte* scales = page + layout.codes();
  for (std::size_t first = 0; first < layout.dim; first += KvMixed::kGroup) {
    const std::size_t n = std::min(KvMixed::kGroup, layout.dim - first);
    float squares = 0;
    for (std::size_t t = 0; t < KvMixed::kCoded; ++t) {
      bf16_t scale;
      std::memcpy(&scale, scales + t * layout.token_bytes(), sizeof scale);
      squares += float_of(scale) * float_of(scale);
    }
    for (std::size_t d = first; d < first + n; ++d)
      excess[d] = balance.factor[d] * balance.factor[d] * squares / (12 * kPageTokens);
    scales += 2 * sizeof(bf16_t) + n / 4;
  }
}

class MikvCodec final : public KvCodec {
public:
  MikvCodec(KvSide side, std::shared_ptr<const KvModel> model) : side_(side), model_(std::move(model)) {
    for (const KvShape& shape : model_->shapes)
      if (shape.dim(side) > kMaxDim) fail("heads of {} channels: mikv-2 is for {}", shape.dim(side), kMaxDim);
  }
  bool observes() const override { return true; }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * layout(layer).bytes();
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const KvShape& shape = model_->shapes[place.layer];
    const KvMixed layout = this->layout(place.layer);
    const std::size_t dim = layout.dim;
    std::vector<float> lines(kPageTokens * shape.k_dim), rows(kPageTokens * dim);
    for (std::size_t head = 0; head < shape.kv_heads; ++head, page += layout.bytes()) {
      const std::vector<float> queries = observed_queries(place.observed, shape, head);
      kernels().tiles_to_lines(place.observed.keys[head], page_lines(KvSide::keys, shape.k_dim), lines.data());
      const std::uint64_t important = important_tokens(queries, lines, shape.k_dim);
      std::memcpy(page, &important, sizeof important);
      rows_of_tiles(side_, heads[head], dim, rows.data());
      std::optional<Balance> balance;
      if (layout.keys) {
        write_balance(queries, lines, important, layout, page);
        balance.emplace(layout, page);
      }
      std::byte *plain = page + layout.kept(), *codes = page + layout.codes();
      for (std::size_t t = 0; t < kPageTokens; ++t) {
        float* row = rows.data() + t * dim;
        if (important >> t & 1) {
          kernels().to_bf16(row, dim, reinterpret_cast<bf16_t*>(plain));
          plain += dim * sizeof(bf16_t);
          continue;
        }
        for (std::size_t d = 0; balance && d < dim; ++d) row[d] = (row[d] - balance->mean[d]) / balance->factor[d];
        encode_token(row, dim, codes);
        codes += layout.token_bytes();
      }
      if (balance) write_excess(layout, *balance, page);
    }
  }

  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    const KvMixed layout = this->layout(place.layer);
    kernels().unpack_mixed(page + head * layout.bytes(), layout, tiles);
  }

  std::size_t excess_rows(std::size_t) const override { return side_ == KvSide::keys ? 1 : 0; }
  void key_excess(std::size_t layer, std::size_t head, const std::byte* page, bf16_t* out) const override {
    const KvMixed layout = this->layout(layer);
    kernels().to_bf16(reinterpret_cast<const float*>(page + head * layout.bytes() + KvMixed::excess()), layout.dim,
                      out);
  }

private:
  KvMixed layout(std::size_t layer) const { return {model_->shapes[layer].dim(side_), side_ == KvSide::keys}; }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
};

}  // namespace

std::unique_ptr<KvCodec> make_mikv_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<MikvCodec>(side, std::move(model));
}

}  // namespace snug
