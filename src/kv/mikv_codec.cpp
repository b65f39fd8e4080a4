#include "kv/mikv_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "base/units.hpp"
#include "kv/heaviest.hpp"
#include "kv/observed_queries.hpp"
#include "kv/rope_page.hpp"
#include "kv/tile_rows.hpp"

namespace snug {

namespace {

constexpr std::size_t kGroup = 32, kCodedTokens = kPageTokens - kImportantTokens;
constexpr float kLevels = 3;

/// How a head's page lies in memory: a bit for each token that is important; of keys, f32[dim] how much more they
/// scatter, and bf16[dim] each, what channels are multiplied by when they are read and what is added then; the
/// important tokens, bf16[16][dim]; the others' codes.
struct Layout {
  std::size_t dim;
  bool balanced;

  static constexpr std::size_t excess() { return sizeof(std::uint64_t); }
  std::size_t factors() const { return excess() + dim * sizeof(float); }
  std::size_t means() const { return factors() + dim * sizeof(bf16_t); }
  std::size_t important() const { return balanced ? means() + dim * sizeof(bf16_t) : excess(); }
  std::size_t codes() const { return important() + kImportantTokens * dim * sizeof(bf16_t); }
  /// Of a token: per group a scale and a least value, bf16, then codes.
  std::size_t token_bytes() const { return (dim + kGroup - 1) / kGroup * 2 * sizeof(bf16_t) + dim / 4; }
  std::size_t bytes() const { return round_up(codes() + kCodedTokens * token_bytes(), sizeof(std::uint64_t)); }
};

/// f(first channel, channels) of each group.
template <class F>
void for_each_group(std::size_t dim, F&& f) {
  for (std::size_t d = 0; d < dim; d += kGroup) f(d, std::min(kGroup, dim - d));
}

/// Byte i of a group of n holds, from the lowest bits up, codes of channels i, n / 4 + i, n / 2 + i, 3 n / 4 + i.
void encode_token(const float* x, std::size_t dim, std::byte* out) {
  for_each_group(dim, [&](std::size_t first, std::size_t n) {
    const auto [least, most] = std::minmax_element(x + first, x + first + n);
    const float wanted[2] = {(*most - *least) / kLevels, *least};
    bf16_t head[2];
    kernels().to_bf16(wanted, 2, head);
    std::memcpy(out, head, sizeof head);
    out += sizeof head;
    const float inverse = float_of(head[0]) >= std::numeric_limits<float>::min() ? 1 / float_of(head[0]) : 0;
    std::memset(out, 0, n / 4);
    for (std::size_t i = 0; i < n; ++i) {
      const float code = std::clamp(std::round((x[first + i] - float_of(head[1])) * inverse), 0.0f, kLevels);
      out[i % (n / 4)] |= std::byte{static_cast<std::uint8_t>(code)} << i / (n / 4) * 2;
    }
    out += n / 4;
  });
}

void decode_token(const std::byte* in, std::size_t dim, float* x) {
  for_each_group(dim, [&](std::size_t first, std::size_t n) {
    bf16_t head[2];
    std::memcpy(head, in, sizeof head);
    in += sizeof head;
    const float scale = float_of(head[0]), least = float_of(head[1]);
    for (std::size_t part = 0; part < 4; ++part)
      for (std::size_t i = 0; i < n / 4; ++i)
        x[first + part * n / 4 + i] = least + scale * static_cast<float>(std::to_integer<int>(in[i]) >> 2 * part & 3);
    in += n / 4;
  });
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
                   const Layout& layout, std::byte* page) {
  const std::size_t dim = layout.dim;
  std::vector<float> most_query(dim), factor(dim, 1), mean(dim);
  for (std::size_t i = 0; i < queries.size(); ++i)
    most_query[i % dim] = std::max(most_query[i % dim], std::abs(queries[i]));
  for (std::size_t d = 0; d < dim; ++d) {
    std::vector<float> line;
    for (std::size_t t = 0; t < kPageTokens; ++t)
      if (!(important >> t & 1)) line.push_back(lines[d * kPageTokens + t]);
    for (const float x : line) mean[d] += x / kCodedTokens;
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

  Balance(const Layout& layout, const std::byte* page) : factor(layout.dim), mean(layout.dim) {
    kernels().from_bf16(reinterpret_cast<const bf16_t*>(page + layout.factors()), layout.dim, factor.data());
    kernels().from_bf16(reinterpret_cast<const bf16_t*>(page + layout.means()), layout.dim, mean.data());
  }
};

/// Variances of the errors of coded keys, over all tokens of the page: what is uniform within a step has a twelfth of
/// its square.
void write_excess(const Layout& layout, const Balance& balance, std::byte* page) {
  auto* excess = reinterpret_cast<float*>(page + Layout::excess());
  const std::byte* scales = page + layout.codes();
  for_each_group(layout.dim, [&](std::size_t first, std::size_t n) {
    float squares = 0;
    for (std::size_t t = 0; t < kCodedTokens; ++t) {
      bf16_t scale;
      std::memcpy(&scale, scales + t * layout.token_bytes(), sizeof scale);
      squares += float_of(scale) * float_of(scale);
    }
    for (std::size_t d = first; d < first + n; ++d)
      excess[d] = balance.factor[d] * balance.factor[d] * squares / (12 * kPageTokens);
    scales += 2 * sizeof(bf16_t) + n / 4;
  });
}

class MikvCodec final : public KvCodec {
public:
  MikvCodec(KvSide side, std::shared_ptr<const KvModel> model) : side_(side), model_(std::move(model)) {}
  bool observes() const override { return true; }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * layout(layer).bytes();
  }

  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    const KvShape& shape = model_->shapes[place.layer];
    const Layout layout = this->layout(place.layer);
    const std::size_t dim = layout.dim;
    std::vector<float> lines(kPageTokens * shape.k_dim), rows(kPageTokens * dim);
    for (std::size_t head = 0; head < shape.kv_heads; ++head, page += layout.bytes()) {
      const std::vector<float> queries = observed_queries(place.observed, shape, head);
      kernels().tiles_to_lines(place.observed.keys[head], page_lines(KvSide::keys, shape.k_dim), lines.data());
      const std::uint64_t important = important_tokens(queries, lines, shape.k_dim);
      std::memcpy(page, &important, sizeof important);
      rows_of_tiles(side_, heads[head], dim, rows.data());
      std::optional<Balance> balance;
      if (layout.balanced) {
        write_balance(queries, lines, important, layout, page);
        balance.emplace(layout, page);
      }
      std::byte *plain = page + layout.important(), *codes = page + layout.codes();
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
    const Layout layout = this->layout(place.layer);
    const std::size_t dim = layout.dim;
    page += head * layout.bytes();
    std::uint64_t important;
    std::memcpy(&important, page, sizeof important);
    std::optional<Balance> balance;
    if (layout.balanced) balance.emplace(layout, page);
    std::vector<float> row(dim);
    std::size_t plain = 0, coded = 0;
    for (std::size_t t = 0; t < kPageTokens; ++t) {
      // A damaged page must not lead beyond its end.
      const bool is_plain = coded == kCodedTokens || (plain < kImportantTokens && (important >> t & 1));
      if (is_plain) {
        const std::byte* at = page + layout.important() + plain++ * dim * sizeof(bf16_t);
        kernels().from_bf16(reinterpret_cast<const bf16_t*>(at), dim, row.data());
      } else {
        decode_token(page + layout.codes() + coded++ * layout.token_bytes(), dim, row.data());
        if (balance) {
          kernels().multiply(row.data(), balance->factor.data(), dim);
          kernels().add(row.data(), balance->mean.data(), dim);
        }
      }
      store_row(side_, row.data(), t, dim, tiles);
    }
  }

  const float* key_excess(std::size_t layer, std::size_t head, const std::byte* page) const override {
    return reinterpret_cast<const float*>(page + head * layout(layer).bytes() + Layout::excess());
  }

private:
  Layout layout(std::size_t layer) const { return {model_->shapes[layer].dim(side_), side_ == KvSide::keys}; }

  KvSide side_;
  std::shared_ptr<const KvModel> model_;
};

}  // namespace

std::unique_ptr<KvCodec> make_mikv_codec(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<MikvCodec>(side, std::move(model));
}

}  // namespace snug
