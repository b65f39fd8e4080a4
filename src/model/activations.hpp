#pragma once
/// Memory of a forward call. Every buffer has one purpose and is alive from one step of a layer to another; those that
/// are never alive together share memory.

#include "base/arena_plan.hpp"
#include "base/growing_buffer.hpp"
#include "model/delta_net.hpp"
#include "model/layer.hpp"
#include "model/moe.hpp"

namespace snug {

/// What a pass does, in order; mixer_norm to per_layer_out once for each layer. A layer goes through the steps that it
/// has: delta net or attention, dense block or experts or (gemma4) both.
enum class Step : std::uint32_t {
  embed,
  mixer_norm,
  delta_project,  ///< layers with a delta net
  delta_convolve,
  delta_recur,
  project,  ///< layers with attention: queries, keys, values
  rotate,   ///< and the keys and values stored
  attend,   ///< and the result gated
  mixer_out,
  ffn_norm,
  dense_up,
  dense_down,
  route,   ///< the experts are chosen
  gather,  ///< their inputs collected
  experts,
  add_experts,
  shared_up,  ///< the expert that is always used
  shared_down,
  ffn_add,
  per_layer_in,  ///< gemma4's inputs of each layer
  per_layer_out,
  logits
};

/// Rows in the two forms that products read.
struct RowMemory {
  float* f32;
  std::byte* q8;
};

/// f32[rows][width] where nothing else is said. What a model does not need is of no size.
class Activations {
public:
  /// How much for `rows` rows; there is no memory yet.
  Activations(const ModelConfig& config, const ModelWeights& weights, std::size_t rows, const ArenaPlanner& planner);
  Bytes bytes() const { return plan_.total; }
  /// That allocate() takes from the ledger for them.
  Bytes charged(const PageStock* stock) const { return GrowingBuffer::charged(plan_.total, stock); }
  /// `stock` may be null (base/page_stock.hpp).
  void allocate(Ledger& ledger, PageStock* stock);
  /// Of use to others while there is no forward pass.
  std::span<std::byte> memory() const { return {memory_.data(), memory_.size()}; }
  /// Gives the memory back; REQUIRES: allocate() before it is used again.
  void release() { memory_ = {}; }

  std::size_t qkv_stride = 0, gate_stride = 0, pairs = 0;  ///< pairs of a rope table, at most

  // Throughout the pass.
  float* x;
  float* per_layer;  ///< [rows][layers * per_layer_input]
  float *cos, *sin;  ///< [rope tables][rows][pairs]
  // The mixer.
  RowMemory mixer_input, mixed;  ///< mixed: [rows][mixer_size]
  float *qkv, *gate;             ///< [rows][stride]
  DeltaNetMemory delta;
  float* mixer_result;  ///< where it is normalised before it is added
  // The feed-forward block.
  RowMemory ffn_input, hidden;  ///< hidden: [rows][ffn], of the dense block
  ExpertMemory experts;
  float* experts_result;    ///< where it is normalised before it is added
  RowMemory shared_hidden;  ///< [rows][shared ffn]
  float* shared_result;
  float* ffn_result;  ///< where it is normalised before it is added
  // The inputs of each layer.
  std::byte* per_layer_x;      ///< int8 form of x
  RowMemory per_layer_hidden;  ///< [rows][per_layer_input]
  float* per_layer_result;
  RowMemory output_input;

private:
  /// visit(pointer, bytes, first step, last step) of every buffer.
  template <class Visit>
  void each(Visit visit);

  const ModelConfig& config_;
  std::size_t rows_;
  std::size_t mixed_dim_ = 0, hidden_dim_ = 0, shared_dim_ = 0;
  bool hybrid_ = false, mixer_post_norm_ = false, ffn_post_norm_ = false, beside_experts_ = false;
  ArenaPlan plan_;
  GrowingBuffer memory_;
};

}  // namespace snug
