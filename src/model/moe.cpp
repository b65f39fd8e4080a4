#include "model/moe.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

namespace snug {

MixtureOfExperts::MixtureOfExperts(Products& products, const ModelConfig& config, const ExpertMemory& memory)
    : products_(products),
      config_(config),
      memory_(memory),
      logit_stride_(ExpertMemory::logit_stride(config.moe)),
      slot_bytes_(ExpertMemory::slot_bytes(config.width)) {}

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
  const Products::Job job{&layer.router, memory_.logits, logit_stride_, false, 0, input};
  products_.run(std::span(&job, 1));
  choices_.resize(input.rows * used);
  for (std::size_t r = 0; r < input.rows; ++r)
    choose(layer, memory_.logits + r * logit_stride_, choices_.data() + r * used);
  if (trace_) {
    auto& chosen = trace_->chosen[layer.expert_layer];
    for (const Choice& choice : choices_) chosen.push_back(static_cast<std::uint16_t>(choice.expert));
  }
  want(layer, input.rows);
}

void MixtureOfExperts::want(const Layer& layer, std::size_t rows) {
  const MoeConfig& moe = config_.moe;
  uses_.assign(moe.experts, 0);
  for (const Choice& choice : choices_) ++uses_[choice.expert];
  likely_.assign(moe.experts, 0);
  if (products_.source().caches_experts()) {
    const float* logits = memory_.logits + (rows - 1) * logit_stride_;
    std::vector<float> sorted(logits, logits + moe.experts);
    const std::size_t bound = std::min<std::size_t>(2 * moe.used, moe.experts) - 1;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(bound), sorted.end(),
                     std::greater<>());
    for (std::size_t e = 0; e < moe.experts; ++e) likely_[e] = logits[e] >= sorted[bound];
  }
  products_.source().want_experts(layer.experts.gate.weight, {uses_, likely_, static_cast<std::uint32_t>(rows)});
}

void MixtureOfExperts::expect(const Layer& next, const float* x) {
  const MoeConfig& moe = config_.moe;
  const bool alike = next.router_norm.empty() && !next.router.quantised();  // the router reads the block's input in f32
  if (!products_.source().caches_experts() || !alike) return;
  early_input_.resize(config_.width);
  kernels().rms_norm(x, next.ffn_norm.data(), config_.norm_epsilon, config_.width, early_input_.data());
  const Products::Job job{
      &next.router, memory_.logits, logit_stride_, false, 0, {early_input_.data(), config_.width, {}, 1}};
  products_.run(std::span(&job, 1));
  predicted_.resize(moe.experts);
  std::iota(predicted_.begin(), predicted_.end(), 0u);
  std::partial_sort(predicted_.begin(), predicted_.begin() + moe.used, predicted_.end(),
                    [&](std::uint32_t a, std::uint32_t b) { return memory_.logits[a] > memory_.logits[b]; });
  predicted_.resize(moe.used);
  products_.source().expect_experts(next.experts.gate.weight, predicted_);
}

Bytes MixtureOfExperts::run(const Layer& layer, const Input& input, Products::Act act, float* out) {
  const std::size_t width = config_.width, used = config_.moe.used;
  const std::vector<Choice>& choices = choices_;

  // Slots sorted by expert; a row's results are added in the order of its choices, whatever ran when.
  std::vector<std::uint32_t> slots(choices.size()), place(choices.size());
  std::iota(slots.begin(), slots.end(), 0u);
  std::stable_sort(slots.begin(), slots.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return choices[a].expert < choices[b].expert; });
  const bool quantised = layer.experts.gate.quantised();
  const std::size_t stride = Q8Rows::stride_for(input.q8.k);
  std::vector<std::size_t> begin(config_.moe.experts + 1);
  for (std::size_t e = 0; e < config_.moe.experts; ++e) begin[e + 1] = begin[e] + uses_[e];
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const std::size_t row = slots[i] / used, first = begin[choices[slots[i]].expert];
    place[slots[i]] = static_cast<std::uint32_t>(i);
    if (quantised)  // rows of int8 stand close together, from the expert's first slot on
      std::memcpy(memory_.slots + first * slot_bytes_ + (i - first) * stride, input.q8.data + row * stride, stride);
    else
      std::copy_n(input.f32 + row * input.stride, width, slot(i));
  }
  Bytes bytes = 0;
  for (auto ready = products_.source().next_experts(); !ready.empty(); ready = products_.source().next_experts()) {
    multiply(layer, ready, begin, input.q8.k, act);
    bytes += ready.size() * (layer.experts.gate.bytes() + layer.experts.up.bytes() + layer.experts.down.bytes());
  }
  products_.pool().parallel_for(input.rows, 4, [&](std::size_t from, std::size_t to, unsigned) {
    for (std::size_t r = from; r < to; ++r) {
      float* sum = slot(place[r * used]);
      kernels().scale(sum, choices[r * used].weight, width);
      for (std::size_t c = 1; c < used; ++c)
        kernels().axpy(sum, choices[r * used + c].weight, slot(place[r * used + c]), width);
      kernels().add(out + r * width, sum, width);
    }
  });
  return bytes;
}

/// Results of some experts for their rows, which lie from begin[expert] on.
void MixtureOfExperts::multiply(const Layer& layer, std::span<const std::uint32_t> experts,
                                std::span<const std::size_t> begin, std::size_t k, Products::Act act) {
  const std::size_t ffn = config_.moe.ffn;
  const std::size_t slot_stride = slot_bytes_ / sizeof(float), hidden_stride = Q8Rows::stride_for(ffn);
  std::vector<Products::GatedJob> up;
  std::vector<Products::Job> down;
  std::vector<std::size_t> rows_done;
  for (const std::uint32_t expert : experts) {
    const std::size_t i = begin[expert], rows = begin[expert + 1] - i;
    const Input in{slot(i), slot_stride, {memory_.slots + i * slot_bytes_, rows, k}, rows};
    const Q8Rows hidden{memory_.hidden_q8 + i * hidden_stride, rows, ffn};
    float* hidden_f32 = memory_.hidden + i * ffn;
    up.push_back({&layer.experts.gate, &layer.experts.up, expert, in, hidden_f32});
    down.push_back({&layer.experts.down, slot(i), slot_stride, false, expert, {hidden_f32, ffn, hidden, rows}});
    for (std::size_t r = i; r < i + rows; ++r) rows_done.push_back(r);
  }
  products_.run_gated(up, act);
  if (layer.experts.down.quantised()) {
    const Q8Rows all{memory_.hidden_q8, begin.back(), ffn};
    products_.pool().parallel_for(rows_done.size(), 8, [&](std::size_t from, std::size_t to, unsigned) {
      for (std::size_t s = from; s < to; ++s)
        kernels().quantize(memory_.hidden + rows_done[s] * ffn, all, rows_done[s]);
    });
  }
  products_.run(down);
}

}  // namespace snug
