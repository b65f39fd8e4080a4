// Linear maps from layer to layer by ridge regression, the lowest layer first.

#include <algorithm>
#include <cmath>

#include "kernels/linear_algebra.hpp"
#include "kv/aqua_codec.hpp"
#include "kv/line_codes.hpp"

namespace snug {

namespace {

constexpr double kRidge = 1e-3;  // of the inputs' mean square

/// Channels of a side of a layer, f32[pages][channels][64].
struct Channels {
  std::size_t count = 0, pages = 0;
  std::vector<float> values;

  const float* line(std::size_t page, std::size_t channel) const {
    return values.data() + (page * count + channel) * kPageTokens;
  }
  double mean(std::size_t channel) const {
    double sum = 0;
    for (std::size_t page = 0; page < pages; ++page)
      for (std::size_t t = 0; t < kPageTokens; ++t) sum += line(page, channel)[t];
    return sum / static_cast<double>(pages * kPageTokens);
  }
};

Channels channels_of(std::span<const bf16_t> samples, std::size_t tokens) {
  Channels out{samples.size() / tokens, tokens / kPageTokens, {}};
  out.values.resize(out.count * out.pages * kPageTokens);
  for (std::size_t t = 0; t < out.pages * kPageTokens; ++t)
    for (std::size_t c = 0; c < out.count; ++c)
      out.values[(t / kPageTokens * out.count + c) * kPageTokens + t % kPageTokens] =
          float_of(samples[t * out.count + c]);
  return out;
}

Channels joined(const Channels& a, const Channels& b) {
  Channels out{a.count + b.count, std::max(a.pages, b.pages), {}};
  for (std::size_t page = 0; page < out.pages; ++page)
    for (const Channels* from : {&a, &b})
      if (from->count > 0)
        out.values.insert(out.values.end(), from->line(page, 0), from->line(page, 0) + from->count * kPageTokens);
  return out;
}

double covariance(const Channels& a, std::size_t i, double mean_a, const Channels& b, std::size_t j, double mean_b) {
  double sum = 0;
  for (std::size_t page = 0; page < a.pages; ++page)
    sum += static_cast<double>(kernels().dot(a.line(page, i), b.line(page, j), kPageTokens));
  return sum / static_cast<double>(a.pages * kPageTokens) - mean_a * mean_b;
}

void solve(const std::vector<double>& factor, std::size_t n, double* x) {
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) x[i] -= factor[i * n + k] * x[k];
    x[i] /= factor[i * n + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) x[i] -= factor[k * n + i] * x[k];
    x[i] /= factor[i * n + i];
  }
}

struct Map {
  std::vector<float> weights, bias;
};

Map regress(const Channels& in, const Channels& out, ThreadPool& pool) {
  const std::size_t n = in.count;
  std::vector<double> moments(n * n), in_means(n);
  for (std::size_t i = 0; i < n; ++i) in_means[i] = in.mean(i);
  pool.parallel_for(n, 1, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t i = from; i < to; ++i)
      for (std::size_t j = 0; j <= i; ++j) moments[i * n + j] = covariance(in, i, in_means[i], in, j, in_means[j]);
  });
  double trace = 0;
  for (std::size_t i = 0; i < n; ++i) trace += moments[i * n + i];
  for (std::size_t i = 0; i < n; ++i) moments[i * n + i] += kRidge * trace / static_cast<double>(n) + 1e-12;
  factorise(moments, n, 1e-300);
  Map map{std::vector<float>(out.count * n), std::vector<float>(out.count)};
  pool.parallel_for(out.count, 1, [&](std::size_t from, std::size_t to, unsigned) {
    std::vector<double> x(n);
    for (std::size_t o = from; o < to; ++o) {
      const double mean = out.mean(o);
      for (std::size_t i = 0; i < n; ++i) x[i] = covariance(in, i, in_means[i], out, o, mean);
      solve(moments, n, x.data());
      double bias = mean;
      for (std::size_t i = 0; i < n; ++i) {
        map.weights[o * n + i] = static_cast<float>(x[i]);
        bias -= x[i] * in_means[i];
      }
      map.bias[o] = static_cast<float>(bias);
    }
  });
  return map;
}

/// What a decoder makes of `out`.
void reconstruct(const Map& map, const Channels& in, std::size_t bits, Channels& out, ThreadPool& pool) {
  pool.parallel_for(out.pages, 1, [&](std::size_t from, std::size_t to, unsigned) {
    std::vector<float> said(out.count * kPageTokens);
    std::vector<std::byte> codes(out.count * line_code_bytes(bits));
    for (std::size_t page = from; page < to; ++page) {
      float* lines = out.values.data() + page * said.size();
      predict_lines(map.weights.data(), map.bias.data(), in.count, out.count,
                    in.values.data() + page * in.count * kPageTokens, said.data());
      kernels().axpy(lines, -1.0f, said.data(), said.size());
      pack_lines(lines, out.count, bits, codes.data());
      std::copy(said.begin(), said.end(), lines);
      kernels().add_line_codes(codes.data(), out.count, bits, lines);
    }
  });
}

}  // namespace

KvTables learn_aqua(const KvLearning& from) {
  KvTables tables;
  const auto& shapes = from.model.shapes;
  std::vector<Channels> keys(shapes.size()), values(shapes.size());  // reconstructed; dropped when they have served
  for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
    if (shapes[layer].kv_heads == 0) continue;
    const auto below = layer_below(shapes, layer);
    const auto learn = [&](KvSide side, const Channels& in, Channels& out) {
      const Map map = regress(in, out, from.pool);
      reconstruct(map, in, AquaShape(from.model, layer, side).bits(), out, from.pool);
      const std::string name = side_name(side);
      if (in.count > 0) tables.add(layer, name + ".weights", map.weights);
      tables.add(layer, name + ".bias", map.bias);
    };
    const Channels none;
    keys[layer] = channels_of(from.samples.layers[layer].keys, from.samples.tokens);
    learn(KvSide::keys, below ? keys[*below] : none, keys[layer]);
    values[layer] = channels_of(from.samples.layers[layer].values, from.samples.tokens);
    learn(KvSide::values, joined(keys[layer], below ? values[*below] : none), values[layer]);
    if (below) keys[*below] = values[*below] = {};
    from.report(layer + 1, shapes.size());
  }
  return tables;
}

}  // namespace snug
