#include "measure/sparsify.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "base/error.hpp"
#include "format/ffn_file.hpp"
#include "format/fingerprint.hpp"
#include "measure/low_rank.hpp"

namespace snug {

namespace {

constexpr std::size_t kRows = 64;  // of a forward call: all want logits, and these are large

std::vector<float> read_rows(const GgufFile& file, const GgufTensor& tensor, std::size_t begin, std::size_t rows) {
  const std::size_t cols = tensor.columns(), row = row_bytes(tensor.type, cols);
  std::vector<std::byte> stored(rows * row);
  file.file(tensor.file).read(tensor.offset + begin * row, stored);
  std::vector<float> values(rows * cols);
  for (std::size_t r = 0; r < rows; ++r) dequantize_row(tensor.type, &stored[r * row], cols, &values[r * cols]);
  return values;
}

class Sparsifier {
public:
  Sparsifier(Model& model, Ledger& ledger, ThreadPool& pool, const SparsifyOptions& options)
      : model_(model), pool_(pool), options_(options), width_(model.config().width) {
    const ModelConfig& c = model.config();
    shape_ = {c.width, static_cast<std::uint32_t>(options.rank), c.activation != Activation::relu_squared, {}};
    if (c.moe.experts) fail("{} has experts: sparse blocks are for dense models", model.file().path());
    if (width_ % Int8Row::kGroup != 0) fail("a width of {} is not a multiple of {}", width_, Int8Row::kGroup);
    if (options.rank % Int8Row::kGroup != 0 || options.rank == 0 || options.rank > width_)
      fail<UsageError>("a rank of {}: a multiple of {} up to the model's width of {} is needed", options.rank,
                       Int8Row::kGroup, width_);
    for (std::uint32_t i = 0; i < c.layer_count; ++i) {
      for (const char* part : {"ffn_gate", "ffn_up", "ffn_down"})
        if (model.file().find_tensor(fmt::format("blk.{}.{}.bias", i, part)))
          fail("{} has biases in its feed-forward blocks, which sparse blocks do not have", model.file().path());
      shape_.neurons.push_back(c.layers[i].ffn);
      moments_.emplace_back(ledger, Tag::scratch, c.layers[i].ffn ? width_ * width_ * sizeof(float) : 0);
      activity_.emplace_back(c.layers[i].ffn);
    }
    if (std::accumulate(shape_.neurons.begin(), shape_.neurons.end(), std::size_t{0}) == 0)
      fail("{} has no dense feed-forward blocks", model.file().path());
  }

  std::size_t watch(const std::vector<TokenId>& tokens) {
    const std::size_t windows = std::min(tokens.size(), options_.max_tokens) / options_.context;
    if (windows == 0)
      fail("the text has {} tokens, less than one window of {}: use a longer text", tokens.size(), options_.context);
    model_.observe_ffn([this](std::size_t layer, std::size_t rows, const float* x, const float* hidden) {
      observe(layer, rows, x, hidden);
    });
    std::vector<float> logits(kRows * model_.config().vocab_size);
    for (std::size_t w = 0; w < windows; ++w) {
      const auto sequence = model_.new_sequence(options_.context);
      const std::size_t step = std::min(kRows, model_.max_rows());
      for (std::size_t at = 0; at < options_.context; at += step) {
        std::vector<Row> rows;
        for (std::size_t i = at; i < std::min(options_.context, at + step); ++i)
          rows.push_back({tokens[w * options_.context + i], sequence.get(), true});
        model_.forward(rows, logits);
      }
      report("watching", w + 1, windows);
    }
    model_.observe_ffn({});
    return windows * options_.context;
  }

  SparsifyResult write(std::size_t tokens, const std::string& path) {
    const std::size_t layers = shape_.neurons.size();
    std::vector<std::vector<std::byte>> predictors(layers);
    orders_.resize(layers);
    SparsifyResult result{tokens, 0, 0, 0, 0};
    std::mutex mutex;
    std::size_t done = 0;
    pool_.parallel_for(layers, 1, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t i = from; i < to; ++i) {
        const double explained = shape_.neurons[i] ? fit(i, tokens, predictors[i]) : 0;
        const std::lock_guard lock(mutex);
        result.explained += explained;
        report("fitting", ++done, layers);
      }
    });
    write_ffn_file(path, model_fingerprint(model_.file()), shape_, predictors, [&](std::size_t layer) {
      std::vector<std::byte> all = bundles(layer);
      result.bundle_bytes += all.size();
      ++result.layers;
      report("writing", layer + 1, layers);
      return all;
    });
    for (const auto& predictor : predictors) result.predictor_bytes += predictor.size();
    result.explained /= static_cast<double>(result.layers);
    return result;
  }

private:
  void report(const char* step, std::size_t done, std::size_t all) const {
    if (options_.progress) options_.progress(step, done, all);
  }

  void observe(std::size_t layer, std::size_t rows, const float* x, const float* hidden) {
    float* moments = moments_[layer].as<float>();
    pool_.parallel_for(width_, 16, [&](std::size_t from, std::size_t to, unsigned) {
      add_moments(x, rows, width_, from, to, moments);
    });
    // A neuron is busy when it is above its token's mean.
    const std::size_t n = shape_.neurons[layer];
    for (std::size_t r = 0; r < rows; ++r) {
      const float* h = hidden + r * n;
      float sum = 0;
      for (std::size_t i = 0; i < n; ++i) sum += std::abs(h[i]);
      for (std::size_t i = 0; i < n; ++i) activity_[layer][i] += std::abs(h[i]) * static_cast<float>(n) > sum;
    }
  }

  /// Rows of gate, or of up: [neurons][width].
  std::vector<float> input_rows(std::size_t layer, bool gate) const {
    const GgufFile& file = model_.file();
    const std::size_t n = shape_.neurons[layer];
    const GgufTensor* own = file.find_tensor(fmt::format("blk.{}.ffn_gate.weight", layer));
    const GgufTensor& up = *file.find_tensor(fmt::format("blk.{}.ffn_up.weight", layer));
    if (gate && own) return read_rows(file, *own, 0, n);
    return read_rows(file, up, up.rows() == 2 * n && !gate ? n : 0, n);  // fused: the gate comes first
  }

  double fit(std::size_t layer, std::size_t tokens, std::vector<std::byte>& out) {
    const std::size_t n = shape_.neurons[layer], rank = shape_.rank;
    std::vector<std::uint32_t>& order = orders_[layer];
    order.resize(n);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return activity_[layer][a] > activity_[layer][b]; });
    const std::vector<float> weight = down_lengths(layer, order);
    std::vector<float> matrix(shape_.inputs() * n * width_);
    for (std::size_t part = 0; part < shape_.inputs(); ++part) {
      const std::vector<float> rows = input_rows(layer, part == 0);
      for (std::size_t i = 0; i < n; ++i)
        kernels().axpy(&matrix[(part * n + i) * width_], weight[i], &rows[order[i] * width_], width_);
    }
    float* moments = moments_[layer].as<float>();
    kernels().scale(moments, 1.0f / static_cast<float>(tokens), width_ * width_);
    // Errors count as much as the neurons do.
    LowRankMap map = fit_low_rank(matrix, width_, rank, std::span(moments, width_ * width_), options_.ridge);
    moments_[layer] = Buffer();
    for (std::size_t i = 0; i < map.spread.size(); ++i) {
      map.spread[i] /= weight[i % n];
      kernels().scale(&map.outputs[i * rank], 1 / weight[i % n], rank);
    }
    out.resize(FfnPredictor::bytes_for(shape_, n));
    std::byte* at = out.data();
    const auto put = [&at](const auto& values) {
      std::memcpy(at, values.data(), values.size() * sizeof(values[0]));
      at += values.size() * sizeof(values[0]);
    };
    put(order);
    put(weight);
    put(map.spread);
    const auto put_rows = [&at](const std::vector<float>& values, std::size_t cols) {
      for (std::size_t r = 0; r < values.size(); r += cols, at += Int8Row::bytes_for(cols))
        quantize_int8_row(&values[r], cols, at);
    };
    put_rows(map.inputs, width_);
    put_rows(map.outputs, rank);
    return map.explained;
  }

  std::vector<float> down_rows(std::size_t layer) const {
    const GgufFile& file = model_.file();
    return read_rows(file, *file.find_tensor(fmt::format("blk.{}.ffn_down.weight", layer)), 0, width_);
  }

  /// Lengths of the down columns, in that order; never 0.
  std::vector<float> down_lengths(std::size_t layer, const std::vector<std::uint32_t>& order) const {
    const std::size_t n = order.size();
    const std::vector<float> down = down_rows(layer);
    std::vector<float> squares(n, 1e-12f), lengths;
    for (std::size_t i = 0; i < down.size(); ++i) squares[i % n] += down[i] * down[i];
    for (const std::uint32_t number : order) lengths.push_back(std::sqrt(squares[number]));
    return lengths;
  }

  std::vector<std::byte> bundles(std::size_t layer) {
    const std::size_t n = shape_.neurons[layer], row = Int8Row::bytes_for(width_);
    std::vector<std::vector<float>> inputs;
    for (std::size_t part = 0; part < shape_.inputs(); ++part) inputs.push_back(input_rows(layer, part == 0));
    const std::vector<float> down = down_rows(layer);
    std::vector<std::byte> all(n * shape_.bundle_bytes());
    pool_.parallel_for(n, 64, [&](std::size_t from, std::size_t to, unsigned) {
      std::vector<float> column(width_);
      for (std::size_t i = from; i < to; ++i) {
        const std::size_t number = orders_[layer][i];
        std::byte* at = &all[i * shape_.bundle_bytes()];
        for (const std::vector<float>& rows : inputs) {
          quantize_int8_row(&rows[number * width_], width_, at);
          at += row;
        }
        for (std::size_t r = 0; r < width_; ++r) column[r] = down[r * n + number];
        quantize_int8_row(column.data(), width_, at);
      }
    });
    return all;
  }

  Model& model_;
  ThreadPool& pool_;
  const SparsifyOptions& options_;
  std::size_t width_;
  FfnShape shape_;
  std::vector<Buffer> moments_;  ///< of each layer's inputs, f32[width][width], sums until fit()
  std::vector<std::vector<float>> activity_;
  std::vector<std::vector<std::uint32_t>> orders_;
};

}  // namespace

SparsifyResult sparsify(Model& model, Ledger& ledger, ThreadPool& pool, const std::vector<TokenId>& tokens,
                        const SparsifyOptions& options, const std::string& path) {
  Sparsifier sparsifier(model, ledger, pool, options);
  return sparsifier.write(sparsifier.watch(tokens), path);
}

}  // namespace snug
