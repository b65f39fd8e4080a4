#include "model/activations.hpp"

#include <algorithm>

namespace snug {

namespace {

Bytes floats(std::size_t rows, std::size_t dim) {
  return checked_mul(checked_mul(rows, dim), sizeof(float));
}

Bytes q8(std::size_t rows, std::size_t dim) {
  return dim == 0 ? 0 : checked_mul(rows, Q8Rows::stride_for(round_up(dim, 32)));
}

}  // namespace

Activations::Activations(const ModelConfig& config, const ModelWeights& weights, std::size_t rows,
                         const ArenaPlanner& planner)
    : config_(config), rows_(rows) {
  for (std::size_t i = 0; i < config.layer_count; ++i) {
    const LayerConfig& c = config.layers[i];
    const Layer& l = weights.layers[i];
    const std::size_t q_dim = std::size_t{c.heads} * c.k_dim;
    if (c.kind == LayerKind::delta_net) {
      hybrid_ = true;
    } else {
      qkv_stride = std::max(qkv_stride, l.query.rows + std::size_t{c.kv_heads} * (c.k_dim + c.v_dim));
      if (l.query.rows > q_dim) gate_stride = std::max({gate_stride, q_dim, config.mixer_size(c)});
    }
    mixed_dim_ = std::max(mixed_dim_, config.mixer_size(c));
    hidden_dim_ = std::max(hidden_dim_, l.dense.gate.rows);
    shared_dim_ = std::max(shared_dim_, l.shared.gate.rows);
    mixer_post_norm_ |= !l.attention_post_norm.empty();
    ffn_post_norm_ |= !l.ffn_post_norm.empty();
    beside_experts_ |= !l.experts_norm.empty();
  }
  for (const RopeTable& table : config.rope) pairs = std::max(pairs, table.inverse_frequency.size());
  std::vector<ArenaBuffer> buffers;
  each([&](const auto*, Bytes size, Step first, Step last) {
    buffers.push_back({size, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last)});
  });
  plan_ = planner(buffers);
}

void Activations::allocate(Ledger& ledger, PageStock* stock) {
  memory_ = GrowingBuffer(ledger, Tag::activations, plan_.total, stock);
  memory_.resize(plan_.total);
  std::size_t index = 0;
  each([&]<class T>(T*& target, Bytes, Step, Step) {
    target = reinterpret_cast<T*>(memory_.data() + plan_.offsets[index++]);
  });
}

template <class Visit>
void Activations::each(Visit visit) {
  const std::size_t width = config_.width, per_layer_dim = config_.per_layer_input;
  const std::size_t angles = pairs * config_.rope.size();
  const std::size_t slots = rows_ * config_.moe.used;  // of rows with their experts
  const auto where = [](bool there, std::size_t dim) { return there ? dim : 0; };
  const auto rows = [&](RowMemory& memory, std::size_t dim, Step first, Step quantised, Step last) {
    visit(memory.f32, floats(rows_, dim), first, last);
    visit(memory.q8, q8(rows_, dim), quantised, last);
  };

  visit(x, floats(rows_, width), Step::embed, Step::logits);
  visit(per_layer, floats(rows_, per_layer_dim * config_.layer_count), Step::embed, Step::logits);
  visit(cos, floats(rows_, angles), Step::embed, Step::logits);
  visit(sin, floats(rows_, angles), Step::embed, Step::logits);

  rows(mixer_input, width, Step::mixer_norm, per_layer_dim ? Step::embed : Step::mixer_norm, Step::project);
  visit(delta.raw, floats(rows_, where(hybrid_, DeltaNetMemory::raw_stride(config_.delta))), Step::delta_project,
        Step::delta_recur);
  visit(delta.convolved, floats(rows_, where(hybrid_, config_.delta.conv_size())), Step::delta_convolve,
        Step::delta_recur);
  visit(qkv, floats(rows_, qkv_stride), Step::project, Step::attend);
  visit(gate, floats(rows_, gate_stride), Step::rotate, Step::attend);
  rows(mixed, mixed_dim_, hybrid_ ? Step::delta_recur : Step::attend, Step::mixer_out, Step::mixer_out);
  visit(mixer_result, floats(rows_, where(mixer_post_norm_, width)), Step::mixer_out, Step::mixer_out);

  // The last to read the block's input. (The gate of a shared expert meets it when the expert's result is there, who
  // observes a dense block when that has ended.)
  const Step read = shared_dim_ ? Step::shared_down : config_.moe.experts ? Step::gather : Step::dense_down;
  rows(ffn_input, width, Step::ffn_norm, Step::ffn_norm, read);
  rows(hidden, hidden_dim_, Step::dense_up, Step::dense_down, Step::dense_down);
  visit(experts.logits, floats(rows_, ExpertMemory::logit_stride(config_.moe)), Step::route, Step::route);
  visit(experts.slots, checked_mul(slots, ExpertMemory::slot_bytes(width)), Step::gather, Step::add_experts);
  visit(experts.hidden, floats(slots, config_.moe.ffn), Step::experts, Step::experts);
  visit(experts.hidden_q8, q8(slots, config_.moe.ffn), Step::experts, Step::experts);
  visit(experts_result, floats(rows_, where(beside_experts_, width)), Step::gather, Step::ffn_add);
  rows(shared_hidden, shared_dim_, Step::shared_up, Step::shared_down, Step::shared_down);
  visit(shared_result, floats(rows_, where(shared_dim_ > 0, width)), Step::shared_down, Step::shared_down);
  visit(ffn_result, floats(rows_, where(ffn_post_norm_ || beside_experts_, width)), Step::dense_down, Step::ffn_add);

  visit(per_layer_x, q8(rows_, where(per_layer_dim > 0, width)), Step::per_layer_in, Step::per_layer_in);
  rows(per_layer_hidden, per_layer_dim, Step::per_layer_in, Step::per_layer_out, Step::per_layer_out);
  visit(per_layer_result, floats(rows_, where(per_layer_dim > 0, width)), Step::per_layer_out, Step::per_layer_out);
  rows(output_input, width, Step::logits, Step::logits, Step::logits);
}

}  // namespace snug
