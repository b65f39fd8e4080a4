#pragma once
/// Attention of many rows over their sequences' KV, in fixed partitions of 256 positions merged in order.

#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/thread_pool.hpp"
#include "kernels/attention_part.hpp"
#include "kv/kv_store.hpp"
#include "model/config.hpp"

namespace snug {

class RecurrentState;

/// Consecutive rows of one sequence: rows [row, row + count) at positions [position, position + count).
struct RowRun {
  KvStore* kv;
  std::size_t row, count, position;
  RecurrentState* recurrent = nullptr;  ///< of hybrid models
};

class Attention {
public:
  /// `context`: tokens that are to be expected; with more, few rows may be shared out less evenly.
  /// `coded`: pages of the KV may be coded.
  Attention(Ledger& ledger, ThreadPool& pool, const ModelConfig& config, std::size_t context, bool coded);

  /// One layer: queries (f32[rows][heads * k_dim], scaled and rotated) over the KV of `kv_layer`, which holds the keys
  /// and values of all rows; out is f32[rows][heads * v_dim]. `sinks`: f32[heads] or empty.
  void run(const LayerConfig& layer, std::size_t kv_layer, std::span<const RowRun> runs, const float* queries,
           std::size_t query_stride, float softcap, std::span<const float> sinks, float* out);

private:
  /// Some rows of a run with one KV head: m = rows * group queries.
  struct Item {
    const RowRun* run;
    std::size_t first, count;  ///< rows within the run
    std::size_t head;
    std::size_t part_begin, part_end;
    std::size_t partial = 0;  ///< index of its first part in partials_, when split
  };
  struct Task {
    std::size_t item, part;
  };
  /// Rows of several sequences, one each, whose first partitions are the same pages.
  struct SharedParts {
    std::vector<const RowRun*> runs;
    std::size_t parts = 0;
  };
  struct Worker {
    bf16_t* queries;
    std::uint32_t *begin, *end;
    AttentionState *part_state, *total_state;
    float *part_acc, *total_acc;
    std::byte* scratch;
    bf16_t *decoded, *excess;  ///< KvStore::DecodeRoom, when pages may be coded
    float* tile_sums;          ///< AttentionPart's, the same
  };

  void prepare(const LayerConfig& layer, const Item& item, const float* queries, std::size_t stride,
               const Worker& worker) const;
  void attend_part(const LayerConfig& layer, std::size_t kv_layer, const Item& item, std::size_t part, float softcap,
                   const Worker& worker, AttentionState* state, float* acc) const;
  /// Some queries over a partition of a run, as its row `first` sees it; Worker::queries, begin and end are theirs.
  void attend_tiles(const LayerConfig& layer, std::size_t kv_layer, const RowRun& run, std::size_t first,
                    std::size_t head, std::size_t part, std::size_t part_end, std::size_t queries, float softcap,
                    const Worker& worker, AttentionState* state, float* acc) const;
  /// One item and part from its queries on; the result goes to `partials`, (max, sum, acc) of each query.
  void attend_apart(const LayerConfig& layer, std::size_t kv_layer, const Item& item, std::size_t part, float softcap,
                    const float* queries, std::size_t query_stride, const Worker& worker, float* partials) const;
  /// f32[k_dim] of an item's query.
  const float* query_of(const LayerConfig& layer, const Item& item, std::size_t index, const float* queries,
                        std::size_t query_stride) const;
  /// Before the first part: the sink, and the summary of tokens that left (query: f32[k_dim]).
  void start(const LayerConfig& layer, std::size_t kv_layer, const Item& item, std::span<const float> sinks,
             std::size_t index, const float* query, const Worker& worker, AttentionState& state, float* acc) const;
  /// run() of these items, of so many rows.
  void run_in_memory(const LayerConfig& layer, std::size_t kv_layer, std::span<const RowRun> runs,
                     std::span<const Item> items, std::size_t rows, const float* queries, std::size_t query_stride,
                     float softcap, std::span<const float> sinks, float* out);
  std::vector<SharedParts> shared_parts(const LayerConfig& layer, std::size_t kv_layer,
                                        std::span<const RowRun> runs) const;
  /// run() of such rows: what they share is read once for all (RelayAttention, arXiv 2402.14808).
  void run_shared(const LayerConfig& layer, std::size_t kv_layer, const SharedParts& shared, const float* queries,
                  std::size_t query_stride, float softcap, std::span<const float> sinks, float* out);
  /// Partial results of split items, in order, and what comes of them.
  void merge_parts(const LayerConfig& layer, std::size_t kv_layer, std::span<const Item> items, const float* queries,
                   std::size_t query_stride, std::span<const float> sinks, float* out);
  float* partial_of(const LayerConfig& layer, const Item& item, std::size_t part, std::size_t query) const {
    const std::size_t group = layer.heads / layer.kv_heads;
    return partials_ + (item.partial + (part - item.part_begin) * item.count * group + query) * (layer.v_dim + 2);
  }
  /// The same for runs with pages on the disk, as these come.
  void run_spilled(const LayerConfig& layer, std::size_t kv_layer, std::span<const RowRun> runs,
                   std::span<const Item> items, const float* queries, std::size_t query_stride, float softcap,
                   std::span<const float> sinks, float* out);
  void finish(const LayerConfig& layer, const Item& item, std::size_t query, const AttentionState& state,
              const float* acc, float* out) const;

  ThreadPool& pool_;
  bool coded_;
  std::size_t max_dim_ = 0;
  Buffer memory_;
  std::vector<Worker> workers_;
  float* partials_ = nullptr;  ///< of split items: per part and query, max, sum, acc
  std::size_t partial_floats_ = 0;
};

}  // namespace snug
