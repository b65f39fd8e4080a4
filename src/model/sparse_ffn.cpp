#include "model/sparse_ffn.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace snug {

namespace {

/// Neurons that a worker takes at a time.
constexpr std::size_t kChunk = 64;

std::size_t most_chosen(std::size_t neurons, float share) {
  const auto n = static_cast<std::size_t>(std::lround(static_cast<double>(share) * static_cast<double>(neurons)));
  return std::min(neurons, std::max<std::size_t>(n, 1));
}

}  // namespace

SparseFfn::SparseFfn(Ledger& ledger, ThreadPool& pool, FfnFile file, const SparseFfnOptions& options, Products::Act act)
    : file_(std::move(file)), options_(options), ledger_(ledger), pool_(pool), act_(act) {
  const FfnShape& s = file_.shape();
  std::size_t most = 0;
  Bytes resident = 0;
  for (const std::size_t n : s.neurons) {
    most = std::max(most, n);
    resident += round_up(FfnPredictor::bytes_for(s, n), 64);
  }
  memory_ = Buffer(ledger, Tag::weights, resident + (s.rank + 3 * round_up(most, 16)) * sizeof(float));
  std::byte* at = memory_.data();
  for (std::size_t layer = 0; layer < s.neurons.size(); ++layer) {
    const std::size_t bytes = FfnPredictor::bytes_for(s, s.neurons[layer]);
    if (bytes > 0) file_.read_predictor(layer, {at, bytes});
    predictors_.push_back(at);
    at += round_up(bytes, 64);
  }
  low_rank_ = reinterpret_cast<float*>(at);
  scores_ = low_rank_ + s.rank;
  sorted_ = scores_ + round_up(most, 16);
  hidden_ = sorted_ + round_up(most, 16);
}

Bytes SparseFfn::least_cache_bytes() const {
  return NeuronCache::least_bytes(file_, options_.share, most_chosen);
}

void SparseFfn::make_cache(Bytes capacity) {
  cache_ = std::make_unique<NeuronCache>(ledger_, file_, options_.share, most_chosen, capacity);
}

void SparseFfn::predict(std::size_t layer, const float* x) {
  const FfnShape& s = file_.shape();
  const std::size_t n = s.neurons[layer], row = Int8Row::bytes_for(s.width);
  const FfnPredictor p = FfnPredictor::at(predictors_[layer], s, n);
  pool_.parallel_for(s.rank, 32, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t i = from; i < to; ++i)
      low_rank_[i] = kernels().dot_int8(x, Int8Row::at(p.inputs + i * row, s.width), s.width);
  });
  pool_.parallel_for(n, kChunk, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t at = from; at < to; at += kChunk) score(p, n, at, std::min(to, at + kChunk));
  });
}

/// The expected square of what a neuron adds, given what the predictor knows of gate and up: up's exactly, gate's by a
/// Gauss-Hermite rule of three points.
void SparseFfn::score(const FfnPredictor& p, std::size_t neurons, std::size_t begin, std::size_t end) {
  const FfnShape& s = file_.shape();
  const std::size_t row = Int8Row::bytes_for(s.rank), n = end - begin;
  float gate[kChunk], up[kChunk], moved[kChunk], result[kChunk];
  const auto dot = [&](std::size_t output) {
    return kernels().dot_int8(low_rank_, Int8Row::at(p.outputs + output * row, s.rank), s.rank);
  };
  for (std::size_t i = 0; i < n; ++i) gate[i] = dot(begin + i);
  for (std::size_t i = 0; s.gated && i < n; ++i)
    up[i] = std::hypot(dot(neurons + begin + i), p.spread[neurons + begin + i]);
  std::fill_n(scores_ + begin, n, 0.0f);
  constexpr struct {
    float deviations, weight;
  } kPoints[] = {{0, 4.0f / 6}, {-1.7320508f, 1.0f / 6}, {1.7320508f, 1.0f / 6}};
  for (const auto& point : kPoints) {
    for (std::size_t i = 0; i < n; ++i) moved[i] = gate[i] + point.deviations * p.spread[begin + i];
    act_(moved, s.gated ? up : moved, n, result);
    for (std::size_t i = 0; i < n; ++i) {
      const float adds = result[i] * p.weight[begin + i];
      scores_[begin + i] += point.weight * adds * adds;
    }
  }
}

/// The neurons with the highest scores, ascending; of equal ones the first.
void SparseFfn::choose(std::size_t neurons) {
  const std::size_t k = most_chosen(neurons, options_.share);
  for (std::size_t i = 0; i < neurons; ++i)
    if (!(scores_[i] >= 0)) scores_[i] = 0;  // NaN has no order
  std::copy_n(scores_, neurons, sorted_);
  std::nth_element(sorted_, sorted_ + (k - 1), sorted_ + neurons, std::greater<>());
  const float least = sorted_[k - 1];
  auto ties =
      k - static_cast<std::size_t>(std::count_if(sorted_, sorted_ + (k - 1), [&](float s) { return s > least; }));
  chosen_.clear();
  for (std::uint32_t i = 0; i < neurons; ++i) {
    if (scores_[i] < least || (scores_[i] == least && ties == 0)) continue;
    if (scores_[i] == least) --ties;
    chosen_.push_back(i);
  }
}

void SparseFfn::compare(const FfnPredictor& p, std::size_t neurons, const float* truth) {
  const auto energy = [&](std::size_t i) {
    const double part = static_cast<double>(truth[p.number[i]]) * static_cast<double>(p.weight[i]);
    return part * part;
  };
  std::uint64_t active = 0, found = 0;
  for (std::size_t i = 0; i < neurons; ++i) {
    stats_.energy += energy(i);
    active += truth[i] != 0;
  }
  for (const std::uint32_t i : chosen_) {
    stats_.kept += energy(i);
    found += truth[p.number[i]] != 0;
  }
  stats_.active += active;
  stats_.missed += active - found;
  stats_.all += neurons;
}

Bytes SparseFfn::run(std::size_t layer, const float* x, const float* truth, float* out, bool add) {
  const FfnShape& s = file_.shape();
  const std::size_t neurons = s.neurons[layer], width = s.width, row = Int8Row::bytes_for(width);
  const FfnPredictor p = FfnPredictor::at(predictors_[layer], s, neurons);
  if (options_.oracle && truth) {
    for (std::size_t i = 0; i < neurons; ++i) scores_[i] = std::abs(truth[p.number[i]]) * p.weight[i];
  } else {
    predict(layer, x);
  }
  choose(neurons);
  if (truth) compare(p, neurons, truth);
  const std::span<const std::byte* const> bundles = cache_->fetch(layer, chosen_);
  const std::size_t k = bundles.size();
  pool_.parallel_for(k, kChunk, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t at = from; at < to; at += kChunk) {
      const std::size_t n = std::min(kChunk, to - at);
      float gate[kChunk], up[kChunk];
      for (std::size_t i = 0; i < n; ++i) {
        const std::byte* bundle = bundles[at + i];
        gate[i] = kernels().dot_int8(x, Int8Row::at(bundle, width), width);
        if (s.gated) up[i] = kernels().dot_int8(x, Int8Row::at(bundle + row, width), width);
      }
      act_(gate, s.gated ? up : gate, n, hidden_ + at);
    }
  });
  // Workers share the columns, so that each sum runs over the neurons in their order.
  constexpr std::size_t kColumns = 128;
  pool_.parallel_for((width + kColumns - 1) / kColumns, 1, [&](std::size_t from, std::size_t to, unsigned) {
    const std::size_t begin = from * kColumns, n = std::min(width, to * kColumns) - begin;
    if (!add) std::fill_n(out + begin, n, 0.0f);
    for (std::size_t i = 0; i < k; ++i)
      kernels().axpy_int8(out + begin, hidden_[i], Int8Row::at(bundles[i] + s.inputs() * row, width).from(begin), n);
  });
  if (layer + 1 == s.neurons.size()) ++stats_.tokens;
  return k * s.bundle_bytes() + FfnPredictor::bytes_for(s, neurons);
}

SparseFfnStats SparseFfn::stats() const {
  SparseFfnStats stats = stats_;
  if (cache_) stats.neurons = cache_->stats();
  return stats;
}

}  // namespace snug
