#include "model/moe.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace snug {

MixtureOfExperts::MixtureOfExperts(Ledger& ledger, Products& products, const ModelConfig& config, std::size_t max_rows)
    : products_(products), config_(config), logit_stride_(round_up(config.moe.experts, kTileRows)) {
  const std::size_t slots = max_rows * config.moe.used, width = config.width, ffn = config.moe.ffn;
  const std::size_t sizes[] = {max_rows * logit_stride_ * 4,
                               slots * width * 4,
                               slots * ffn * 4,
                               slots * width * 4,
                               slots * Q8Rows::stride_for(round_up(width, 32)),
                               slots * Q8Rows::stride_for(round_up(ffn, 32))};
  std::size_t total = 0;
  for (const std::size_t size : sizes) total += round_up(size, 64);
  memory_ = Buffer(ledger, Tag::activations, total);
  std::byte* at = memory_.data();
  const auto next = [&at](std::size_t size) {
    std::byte* here = at;
    at += round_up(size, 64);
    return here;
  };
  logits_ = reinterpret_cast<float*>(next(sizes[0]));
  gathered_f32_ = reinterpret_cast<float*>(next(sizes[1]));
  hidden_f32_ = reinterpret_cast<float*>(next(sizes[2]));
  results_ = reinterpret_cast<float*>(next(sizes[3]));
  gathered_q8_ = next(sizes[4]);
  hidden_q8_ = next(sizes[5]);
}

void MixtureOfExperts::choose(const Layer& layer, const float* logits, Choice* out) const {
  const MoeConfig& moe = config_.moe;
  std::vector<float> scores(logits, logits + moe.experts);
  if (moe.gating == Gating::softmax) kernels().softmax(scores.data(), scores.size());
  std::vector<std::uint32_t> order(moe.experts);
  std::iota(order.begin(), order.end(), 0u);
  std::partial_sort(order.begin(), order.begin() + moe.used, order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  std::vector<float> weights;
  for (std::uint32_t i = 0; i < moe.used; ++i) weights.push_back(scores[order[i]]);
  if (moe.gating == Gating::softmax_of_chosen) kernels().softmax(weights.data(), weights.size());
  if (moe.gating == Gating::softmax && moe.normalise) {
    float sum = 0;
    for (const float w : weights) sum += w;
    for (float& w : weights) w /= std::max(sum, 6.103515625e-5f);
  }
  for (std::uint32_t i = 0; i < moe.used; ++i) {
    const float scale = layer.expert_scale.empty() ? 1.0f : layer.expert_scale[order[i]];
    out[i] = {order[i], weights[i] * moe.scale * scale};
  }
}

void MixtureOfExperts::route(const Layer& layer, const Input& input) {
  const std::size_t used = config_.moe.used;
  const Products::Job job{&layer.router, logits_, logit_stride_, false, 0, input};
  products_.run(std::span(&job, 1));
  choices_.resize(input.rows * used);
  for (std::size_t r = 0; r < input.rows; ++r) choose(layer, logits_ + r * logit_stride_, choices_.data() + r * used);
}

Bytes MixtureOfExperts::run(const Layer& layer, const Input& input, Products::Act act, float* out) {
  const std::size_t width = config_.width, ffn = config_.moe.ffn, used = config_.moe.used;
  const std::vector<Choice>& choices = choices_;

  // Slots sorted by expert; a row's results are added in the order of its choices, whatever ran when.
  std::vector<std::uint32_t> slots(choices.size()), place(choices.size());
  std::iota(slots.begin(), slots.end(), 0u);
  std::stable_sort(slots.begin(), slots.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return choices[a].expert < choices[b].expert; });
  const bool quantised_in = layer.experts.gate.quantised(), quantised_hidden = layer.experts.down.quantised();
  const std::size_t in_stride = Q8Rows::stride_for(input.q8.k), hidden_stride = Q8Rows::stride_for(ffn);
  std::vector<Products::GatedJob> up;
  std::vector<Products::Job> down;
  Bytes bytes = 0;
  for (std::size_t i = 0; i < slots.size();) {
    const std::uint32_t expert = choices[slots[i]].expert;
    std::size_t end = i;
    for (; end < slots.size() && choices[slots[end]].expert == expert; ++end) {
      const std::size_t row = slots[end] / used;
      place[slots[end]] = static_cast<std::uint32_t>(end);
      if (quantised_in)
        std::memcpy(gathered_q8_ + end * in_stride, input.q8.data + row * in_stride, in_stride);
      else
        std::copy_n(input.f32 + row * input.stride, width, gathered_f32_ + end * width);
    }
    const std::size_t rows = end - i;
    const Input in{gathered_f32_ + i * width, width, {gathered_q8_ + i * in_stride, rows, input.q8.k}, rows};
    const Q8Rows hidden{hidden_q8_ + i * hidden_stride, rows, ffn};
    float* hidden_f32 = hidden_f32_ + i * ffn;
    up.push_back({&layer.experts.gate, &layer.experts.up, expert, in, hidden_f32});
    down.push_back({&layer.experts.down, results_ + i * width, width, false, expert, {hidden_f32, ffn, hidden, rows}});
    bytes += layer.experts.gate.bytes() + layer.experts.up.bytes() + layer.experts.down.bytes();
    i = end;
  }
  products_.run_gated(up, act);
  if (quantised_hidden) {
    const Q8Rows all{hidden_q8_, slots.size(), ffn};
    products_.pool().parallel_for(slots.size(), 8, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t s = from; s < to; ++s) kernels().quantize(hidden_f32_ + s * ffn, all, s);
    });
  }
  products_.run(down);
  products_.pool().parallel_for(input.rows, 4, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* sum = results_ + place[r * used] * width;
      kernels().scale(sum, choices[r * used].weight, width);
      for (std::size_t c = 1; c < used; ++c)
        kernels().axpy(sum, choices[r * used + c].weight, results_ + place[r * used + c] * width, width);
      kernels().add(out + r * width, sum, width);
    }
  });
  return bytes;
}

}  // namespace snug
