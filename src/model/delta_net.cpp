#include "model/delta_net.hpp"

#include <algorithm>
#include <cmath>

namespace snug {

RecurrentState::RecurrentState(Ledger& ledger, const ModelConfig& config)
    : ledger_(ledger), config_(config), size_(config.delta.state_size()) {
  for (const LayerConfig& layer : config.layers) {
    index_.push_back(layers_);
    if (layer.kind == LayerKind::delta_net) ++layers_;
  }
  memory_ = Buffer(ledger, Tag::kv, 2 * layers_ * size_ * sizeof(float));
  clear();
}

void RecurrentState::clear() {
  current_ = 0;
  std::fill_n(memory_.as<float>(), layers_ * size_, 0.0f);
}

std::unique_ptr<RecurrentState> RecurrentState::copy() const {
  auto result = std::make_unique<RecurrentState>(ledger_, config_);
  std::copy_n(memory_.as<float>(), 2 * layers_ * size_, result->memory_.as<float>());
  result->current_ = current_;
  return result;
}

float* RecurrentState::at(std::size_t layer, unsigned which) const {
  return memory_.as<float>() + (which * layers_ + index_[layer]) * size_;
}

DeltaNet::DeltaNet(Products& products, const ModelConfig& config, const DeltaNetMemory& memory)
    : products_(products),
      config_(config),
      delta_(config.delta),
      conv_size_(delta_.conv_size()),
      value_size_(delta_.value_size()),
      stride_(DeltaNetMemory::raw_stride(delta_)),
      raw_(memory.raw),
      convolved_(memory.convolved) {}

void DeltaNet::convolve(const DeltaNetWeights& weights, std::size_t layer, const RecurrentRun& run) {
  const std::size_t tail = delta_.conv - 1, k_dim = delta_.k_dim;
  const float* before = run.state->before(layer);
  // Input `i` tokens after the first of the run; earlier ones are in the state.
  const auto input = [&](std::size_t i_plus_tail) {
    return i_plus_tail < tail ? before + i_plus_tail * conv_size_ : raw_ + (run.row + i_plus_tail - tail) * stride_;
  };
  products_.pool().parallel_for(run.count, 4, [&](std::size_t from, std::size_t to, unsigned) {
    std::vector<const float*> inputs(delta_.conv);
    for (std::size_t i = from; i < to; ++i) {
      for (std::size_t t = 0; t < delta_.conv; ++t) inputs[t] = input(i + t);
      float* out = convolved_ + (run.row + i) * conv_size_;
      kernels().causal_conv(inputs.data(), weights.conv.data(), delta_.conv, conv_size_, out);
      const auto dim = static_cast<float>(k_dim);
      for (std::size_t h = 0; h < std::size_t{2} * delta_.key_heads; ++h) {
        float* x = out + h * k_dim;
        kernels().rms_norm(x, nullptr, config_.norm_epsilon / dim, k_dim, x);
        // Unit length; queries are also divided by the root of their dimension.
        kernels().scale(x, h < delta_.key_heads ? 1.0f / dim : 1.0f / std::sqrt(dim), k_dim);
      }
    }
  });
  float* after = run.state->after(layer);
  for (std::size_t t = 0; t < tail; ++t) std::copy_n(input(run.count + t), conv_size_, after + t * conv_size_);
}

void DeltaNet::recur(const DeltaNetWeights& weights, std::size_t layer, const RecurrentRun& run, std::size_t head,
                     float* out) {
  const std::size_t k_dim = delta_.k_dim, v_dim = delta_.v_dim, share = delta_.value_heads / delta_.key_heads;
  const std::size_t key_head = delta_.interleaved ? head / share : head % delta_.key_heads;
  const std::size_t at = (delta_.conv - 1) * conv_size_ + head * v_dim * k_dim;
  const float* from = run.state->before(layer) + at;
  float* to = run.state->after(layer) + at;
  // A fused matrix gives for each key head the betas, then the alphas, of its value heads.
  const bool fused = weights.alpha.rows == 0;
  const std::size_t beta_at = fused ? head / share * 2 * share + head % share : head;
  const std::size_t alpha_at = fused ? beta_at + share : delta_.value_heads + head;
  for (std::size_t row = run.row; row < run.row + run.count; ++row) {
    const float* q = convolved_ + row * conv_size_ + key_head * k_dim;
    const float* scalars = raw_ + row * stride_ + conv_size_ + value_size_;
    const float step = scalars[alpha_at] + weights.step_bias[head];
    const float softplus = step > 20 ? step : std::log1p(std::exp(step));
    const float* value = convolved_ + row * conv_size_ + 2 * delta_.key_heads * k_dim + head * v_dim;
    float* y = out + row * value_size_ + head * v_dim;
    kernels().delta_rule(from, to,
                         {q, q + delta_.key_heads * k_dim, value, std::exp(softplus * weights.decay[head]),
                          1.0f / (1.0f + std::exp(-scalars[beta_at])), k_dim, v_dim},
                         y);
    from = to;
    kernels().rms_norm(y, weights.norm.data(), config_.norm_epsilon, v_dim, y);
    kernels().silu_mul(raw_ + row * stride_ + conv_size_ + head * v_dim, y, v_dim, y);
  }
}

void DeltaNet::run(const DeltaNetWeights& weights, std::size_t layer, std::span<const RecurrentRun> runs,
                   const Input& input, float* out) {
  float* scalars = raw_ + conv_size_ + value_size_;
  std::vector<Products::Job> jobs{{&weights.mixed, raw_, stride_, false, 0, input},
                                  {&weights.gate, raw_ + conv_size_, stride_, false, 0, input},
                                  {&weights.beta, scalars, stride_, false, 0, input}};
  if (weights.alpha.rows) jobs.push_back({&weights.alpha, scalars + delta_.value_heads, stride_, false, 0, input});
  products_.run(jobs);
  for (const RecurrentRun& run : runs) convolve(weights, layer, run);
  products_.pool().parallel_for(runs.size() * delta_.value_heads, 1, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t i = from; i < to; ++i)
      recur(weights, layer, runs[i / delta_.value_heads], i % delta_.value_heads, out);
  });
}

}  // namespace snug
