#include "kv/gear_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/linear_algebra.hpp"
#include "kv/integer_codec.hpp"

namespace snug {

namespace {

constexpr std::size_t kRank = KvCodes::kRank, kGroup = 64;
constexpr int kIterations = 4;

bf16_t to_bf16(float x) {
  bf16_t out;
  kernels().to_bf16(&x, 1, &out);
  return out;
}

KvCodes gear_page(KvSide side, std::size_t dim, std::size_t bits) {
  KvCodes codes = integer_page(side, dim, bits, kGroup);
  codes.ends = KvCodes::Ends::fitted;
  codes.outliers = std::max<std::size_t>(1, (codes.positions() * 2 + 50) / 100);
  codes.low_rank = true;
  return codes;
}

/// The best product of rank kRank for error[line_count][n], by subspace iteration.
struct LowRank {
  std::vector<float> lines, positions;  ///< [rank][lines], [rank][positions]

  LowRank(const std::vector<float>& error, std::size_t line_count, std::size_t n)
      : lines(kRank * line_count), positions(kRank * n) {
    // Rows of the error itself lie in the space that is sought.
    for (std::size_t r = 0; r < kRank; ++r)
      std::copy_n(error.data() + line_count * (2 * r + 1) / (2 * kRank) * n, n, positions.data() + r * n);
    for (int i = 0; i < kIterations; ++i) {
      if (i > 0) {
        std::fill(positions.begin(), positions.end(), 0.0f);
        for (std::size_t r = 0; r < kRank; ++r)
          for (std::size_t l = 0; l < line_count; ++l)
            kernels().axpy(positions.data() + r * n, lines[r * line_count + l], error.data() + l * n, n);
      }
      orthonormalise(positions, n, 1);
      for (std::size_t r = 0; r < kRank; ++r)
        for (std::size_t l = 0; l < line_count; ++l)
          lines[r * line_count + l] = kernels().dot(error.data() + l * n, positions.data() + r * n, n);
    }
  }
};

void store_factor(const float* x, std::size_t n, std::byte* scale_out, std::byte* out) {
  float most = 0;
  for (std::size_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  const bf16_t scale = to_bf16(most / 127);
  std::memcpy(scale_out, &scale, sizeof scale);
  const float inverse = float_of(scale) > 0 ? 1 / float_of(scale) : 0;
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<std::byte>(static_cast<std::int8_t>(std::clamp(std::round(x[i] * inverse), -127.0f, 127.0f)));
}

class GearCodec final : public KvCodec {
public:
  GearCodec(KvSide side, std::shared_ptr<const KvModel> model, std::size_t bits) : model_(std::move(model)) {
    for (const KvShape& shape : model_->shapes) codes_.push_back(gear_page(side, shape.dim(side), bits));
  }
  std::size_t page_bytes(std::size_t layer) const override {
    return model_->shapes[layer].kv_heads * codes_[layer].bytes();
  }
  void encode(KvPlace place, const bf16_t* const* heads, std::byte* page) const override {
    for (std::size_t head = 0; head < model_->shapes[place.layer].kv_heads; ++head)
      encode_head(codes_[place.layer], heads[head], page + head * codes_[place.layer].bytes());
  }
  void decode(KvPlace place, std::size_t head, const std::byte* page, bf16_t* tiles) const override {
    kernels().unpack_kv(page + head * codes_[place.layer].bytes(), codes_[place.layer], tiles);
  }

private:
  /// The places of the values of each line that are furthest from its mean; in `tiles` the mean takes theirs.
  static std::vector<std::uint16_t> take_outliers(const KvCodes& codes, bf16_t* tiles) {
    const std::size_t n = codes.positions();
    std::vector<float> line(n);
    std::vector<std::uint16_t> order(n), places;
    for (std::size_t l = 0; l < codes.depth; ++l) {
      float mean = 0;
      for (std::size_t i = 0; i < n; ++i) mean += line[i] = float_of(tiles[codes.index(l, i)]);
      mean /= static_cast<float>(n);
      for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::uint16_t>(i);
      std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(codes.outliers), order.end(),
                        [&](std::uint16_t a, std::uint16_t b) {
                          const float off_a = std::abs(line[a] - mean), off_b = std::abs(line[b] - mean);
                          return off_a != off_b ? off_a > off_b : a < b;
                        });
      for (std::size_t k = 0; k < codes.outliers; ++k) {
        places.push_back(order[k]);
        tiles[codes.index(l, order[k])] = to_bf16(mean);
      }
    }
    return places;
  }

  static void encode_head(const KvCodes& codes, const bf16_t* tiles, std::byte* page) {
    const std::size_t lines = codes.depth, n = codes.positions();
    std::vector<bf16_t> rest(tiles, tiles + lines * n), coded(rest.size());
    const std::vector<std::uint16_t> places = take_outliers(codes, rest.data());
    kernels().pack_kv(rest.data(), codes, page);
    KvCodes plain = codes;
    plain.low_rank = false, plain.outliers = 0;
    kernels().unpack_kv(page, plain, coded.data());
    std::vector<float> error(lines * n);
    for (std::size_t l = 0; l < lines; ++l)
      for (std::size_t i = 0; i < n; ++i)
        error[l * n + i] = float_of(rest[codes.index(l, i)]) - float_of(coded[codes.index(l, i)]);
    const LowRank product(error, lines, n);
    std::memset(page + codes.outlier_values(), 0, codes.bytes() - codes.outlier_values());
    std::byte *scale = page + codes.factor_scales(), *factor = page + codes.factors();
    for (std::size_t r = 0; r < kRank; ++r, scale += sizeof(bf16_t), factor += lines)
      store_factor(product.lines.data() + r * lines, lines, scale, factor);
    for (std::size_t r = 0; r < kRank; ++r, scale += sizeof(bf16_t), factor += n)
      store_factor(product.positions.data() + r * n, n, scale, factor);
    for (std::size_t i = 0; i < places.size(); ++i)
      std::memcpy(page + codes.outlier_places() + i * codes.place_bytes(), &places[i], codes.place_bytes());
    // An outlier stands for what everything else leaves of its value.
    kernels().unpack_kv(page, codes, coded.data());
    std::byte* value = page + codes.outlier_values();
    for (std::size_t i = 0; i < places.size(); ++i, value += sizeof(bf16_t)) {
      const std::size_t at = codes.index(i / codes.outliers, places[i]);
      const bf16_t left = to_bf16(float_of(tiles[at]) - float_of(coded[at]));
      std::memcpy(value, &left, sizeof left);
    }
  }

  std::shared_ptr<const KvModel> model_;
  std::vector<KvCodes> codes_;  ///< of each layer
};

}  // namespace

std::unique_ptr<KvCodec> make_gear_codec(KvSide side, std::shared_ptr<const KvModel> model, std::size_t bits) {
  return std::make_unique<GearCodec>(side, std::move(model), bits);
}

}  // namespace snug
