#include "model/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention_scratch.hpp"

namespace snug {

namespace {

constexpr std::size_t kLeastQueries = 128;       // queries of one item: enough to share each tile well
constexpr std::size_t kBlockQueries = 448;       // where there is enough to do for all: to share what is decoded
constexpr std::size_t kSplitRows = 16;           // up to so many rows, partitions are spread over the pool
constexpr std::size_t kPartialFloats = 1 << 19;  // memory for their results, where one row needs no more

}  // namespace

Attention::Attention(Ledger& ledger, ThreadPool& pool, const ModelConfig& config, std::size_t context, bool coded)
    : pool_(pool), coded_(coded) {
  std::size_t group = 1, heads = 1;
  for (const LayerConfig& layer : config.layers) {
    if (layer.kv_heads == 0) continue;
    max_dim_ = std::max<std::size_t>({max_dim_, layer.k_dim, layer.v_dim});
    group = std::max<std::size_t>(group, layer.heads / layer.kv_heads);
    heads = std::max<std::size_t>(heads, layer.heads);
  }
  const std::size_t m = std::max(kBlockQueries, group);
  const std::size_t sizes[] = {m * max_dim_ * sizeof(bf16_t),
                               m * 4,
                               m * 4,
                               m * sizeof(AttentionState),
                               m * sizeof(AttentionState),
                               m * max_dim_ * 4,
                               m * max_dim_ * 4,
                               attention_scratch_bytes(m),
                               coded ? 2 * kPartTokens * max_dim_ * sizeof(bf16_t) : 0,
                               coded ? kPartTiles * max_dim_ * sizeof(bf16_t) : 0,
                               coded ? m * kPartTiles * sizeof(float) : 0};
  std::size_t each = 0;
  for (const std::size_t size : sizes) each += round_up(size, 64);
  const std::size_t of_row = heads * (context / kPartTokens + 1) * (max_dim_ + 2);
  partial_floats_ = std::min(std::max(kPartialFloats, of_row), kSplitRows * of_row);
  memory_ = Buffer(ledger, Tag::scratch, each * pool.size() + partial_floats_ * sizeof(float));
  std::byte* at = memory_.data();
  const auto next = [&at](std::size_t size) {
    std::byte* here = at;
    at += round_up(size, 64);
    return here;
  };
  for (unsigned i = 0; i < pool.size(); ++i) {
    Worker w;
    w.queries = reinterpret_cast<bf16_t*>(next(sizes[0]));
    w.begin = reinterpret_cast<std::uint32_t*>(next(sizes[1]));
    w.end = reinterpret_cast<std::uint32_t*>(next(sizes[2]));
    w.part_state = reinterpret_cast<AttentionState*>(next(sizes[3]));
    w.total_state = reinterpret_cast<AttentionState*>(next(sizes[4]));
    w.part_acc = reinterpret_cast<float*>(next(sizes[5]));
    w.total_acc = reinterpret_cast<float*>(next(sizes[6]));
    w.scratch = next(sizes[7]);
    w.decoded = reinterpret_cast<bf16_t*>(next(sizes[8]));
    w.excess = reinterpret_cast<bf16_t*>(next(sizes[9]));
    w.tile_sums = reinterpret_cast<float*>(next(sizes[10]));
    workers_.push_back(w);
  }
  partials_ = reinterpret_cast<float*>(at);
}

void Attention::prepare(const LayerConfig& layer, const Item& item, const float* queries, std::size_t stride,
                        const Worker& worker) const {
  const std::size_t group = layer.heads / layer.kv_heads;
  for (std::size_t r = 0; r < item.count; ++r)
    kernels().to_bf16(queries + (item.run->row + item.first + r) * stride + item.head * group * layer.k_dim,
                      group * layer.k_dim, worker.queries + r * group * layer.k_dim);
}

void Attention::attend_part(const LayerConfig& layer, std::size_t kv_layer, const Item& item, std::size_t part,
                            float softcap, const Worker& worker, AttentionState* state, float* acc) const {
  const std::size_t group = layer.heads / layer.kv_heads, start = part * kPartTokens;
  const RowRun& run = *item.run;
  for (std::size_t r = 0; r < item.count; ++r) {
    const std::size_t position = run.position + item.first + r;
    const std::size_t oldest = layer.window && position + 1 > layer.window ? position + 1 - layer.window : 0;
    const auto clip = [&](std::size_t p) {
      return static_cast<std::uint32_t>(std::clamp(p, start, start + kPartTokens) - start);
    };
    for (std::size_t g = 0; g < group; ++g) {
      worker.begin[r * group + g] = clip(oldest);
      worker.end[r * group + g] = clip(position + 1);
    }
  }
  attend_tiles(layer, kv_layer, run, item.first, item.head, part, item.part_end, item.count * group, softcap, worker,
               state, acc);
}

void Attention::attend_tiles(const LayerConfig& layer, std::size_t kv_layer, const RowRun& run, std::size_t first,
                             std::size_t head, std::size_t part, std::size_t part_end, std::size_t queries,
                             float softcap, const Worker& worker, AttentionState* state, float* acc) const {
  const std::size_t tokens = run.position + run.count;
  KvStore::PartTiles tiles, following;
  // A page's turn comes when its tiles are wanted, and they stay in the L1 cache when few queries need them only once.
  struct Source {
    const KvStore& kv;
    std::size_t layer, head, first_page;
    KvStore::DecodeRoom room;
  };
  const Source source = {
      *run.kv, kv_layer, head, part * kPartPages, {worker.decoded, worker.excess, queries <= kAttentionBlock}};
  AttentionPart view;
  view.tiles = run.kv->part(kv_layer, head, part, tokens, tiles);
  if (coded_ && !run.kv->sees_exactly(kv_layer, run.count)) {
    run.kv->coded_part(kv_layer, head, part, KvFormat::coded_pages(run.position + first), source.room, tiles);
    view.k_coded = tiles.coded_keys;
    view.v_coded = tiles.coded_values;
    std::copy_n(tiles.excess, kPartTiles, view.k_excess);
    view.source = &source;
    view.decode = [](const void* of, bool keys, std::size_t page) {
      const auto& from = *static_cast<const Source*>(of);
      return from.kv.decode_page(from.layer, from.head, from.first_page + page, keys ? KvSide::keys : KvSide::values,
                                 from.room);
    };
  }
  view.k_tiles = tiles.keys;
  view.v_tiles = tiles.values;
  view.k_dim = layer.k_dim;
  view.v_dim = layer.v_dim;
  if (part + 1 < part_end && tiles.coded_values == 0) {  // what is coded tells itself what comes next
    view.next_tiles = run.kv->part(kv_layer, head, part + 1, tokens, following);
    view.next_keys = following.keys;
  }
  const bool looks_back = run.kv->looks_back(kv_layer, run.count);
  if (looks_back) view.tile_sums = worker.tile_sums;
  kernels().attend(view, worker.queries, queries, worker.begin, worker.end, softcap, state, acc, worker.scratch);
  if (looks_back) run.kv->note_weights(kv_layer, head, part, {state, layer.heads / layer.kv_heads}, worker.tile_sums);
}

void Attention::attend_apart(const LayerConfig& layer, std::size_t kv_layer, const Item& item, std::size_t part,
                             float softcap, const float* queries, std::size_t query_stride, const Worker& worker,
                             float* partials) const {
  const std::size_t v_dim = layer.v_dim, count = item.count * (layer.heads / layer.kv_heads);
  prepare(layer, item, queries, query_stride, worker);
  attend_part(layer, kv_layer, item, part, softcap, worker, worker.part_state, worker.part_acc);
  for (std::size_t q = 0; q < count; ++q, partials += v_dim + 2) {
    partials[0] = worker.part_state[q].max;
    partials[1] = worker.part_state[q].sum;
    std::copy_n(worker.part_acc + q * v_dim, v_dim, partials + 2);
  }
}

const float* Attention::query_of(const LayerConfig& layer, const Item& item, std::size_t index, const float* queries,
                                 std::size_t query_stride) const {
  const std::size_t group = layer.heads / layer.kv_heads;
  return queries + (item.run->row + item.first + index / group) * query_stride +
         (item.head * group + index % group) * layer.k_dim;
}

void Attention::start(const LayerConfig& layer, std::size_t kv_layer, const Item& item, std::span<const float> sinks,
                      std::size_t index, const float* query, const Worker& worker, AttentionState& state,
                      float* acc) const {
  const std::size_t group = layer.heads / layer.kv_heads, head = item.head * group + index % group;
  state = {-std::numeric_limits<float>::infinity(), 0};
  // A sink is a score without a value.
  if (!sinks.empty()) state = {sinks[head], 1};
  std::fill_n(acc, layer.v_dim, 0.0f);
  if (const LowRankSummary* summary = item.run->kv->summary(kv_layer)) {
    const float sum = summary->attend(item.head, head, query, worker.part_acc);
    if (sum > 0) kernels().merge(state, acc, {0, sum}, worker.part_acc, layer.v_dim);
  }
}

void Attention::finish(const LayerConfig& layer, const Item& item, std::size_t query, const AttentionState& state,
                       const float* acc, float* out) const {
  const std::size_t group = layer.heads / layer.kv_heads;
  const std::size_t row = item.run->row + item.first + query / group, head = item.head * group + query % group;
  float* to = out + row * layer.heads * layer.v_dim + head * layer.v_dim;
  const float factor = 1.0f / state.sum;
  for (std::size_t i = 0; i < layer.v_dim; ++i) to[i] = acc[i] * factor;
}

void Attention::run(const LayerConfig& layer, std::size_t kv_layer, std::span<const RowRun> runs, const float* queries,
                    std::size_t query_stride, float softcap, std::span<const float> sinks, float* out) {
  const std::size_t group = layer.heads / layer.kv_heads;
  std::vector<Item> items;
  std::size_t rows = 0, partial = 0;
  for (const RowRun& run : runs) {
    run.kv->prepare(pool_, kv_layer, KvFormat::coded_pages(run.position + run.count - 1));
    run.kv->begin_recall(kv_layer, run.count);
  }
  std::vector<const RowRun*> sharing;
  for (const SharedParts& shared : shared_parts(layer, kv_layer, runs)) {
    run_shared(layer, kv_layer, shared, queries, query_stride, softcap, sinks, out);
    sharing.insert(sharing.end(), shared.runs.begin(), shared.runs.end());
  }
  for (const RowRun& run : runs) {
    if (std::find(sharing.begin(), sharing.end(), &run) != sharing.end()) continue;
    rows += run.count;
    const std::size_t even = run.count * layer.kv_heads / (2 * pool_.size());
    const std::size_t block = std::max<std::size_t>(1, std::clamp(even * group, kLeastQueries, kBlockQueries) / group);
    for (std::size_t first = 0, count = 0; first < run.count; first += count) {
      const std::size_t position = run.position + first;
      count = std::min(block, run.count - first);
      // All rows of an item see the same pages coded.
      if (coded_) count = std::min(count, kPageTokens - position % kPageTokens);
      for (std::size_t head = 0; head < layer.kv_heads; ++head) {
        Item item{&run, first, count, head, 0, 0};
        if (layer.window && position + 1 > layer.window) item.part_begin = (position + 1 - layer.window) / kPartTokens;
        item.part_end = (position + item.count - 1) / kPartTokens + 1;
        item.partial = partial;
        partial += (item.part_end - item.part_begin) * item.count * group;
        items.push_back(item);
      }
    }
  }
  if (items.empty()) return;
  if (std::any_of(runs.begin(), runs.end(),
                  [&](const RowRun& run) { return run.kv->parts_on_disk(kv_layer, run.count) > 0; }))
    run_spilled(layer, kv_layer, runs, items, queries, query_stride, softcap, sinks, out);
  else
    run_in_memory(layer, kv_layer, runs, items, rows, queries, query_stride, softcap, sinks, out);
}

void Attention::run_in_memory(const LayerConfig& layer, std::size_t kv_layer, std::span<const RowRun> runs,
                              std::span<const Item> items, std::size_t rows, const float* queries,
                              std::size_t query_stride, float softcap, std::span<const float> sinks, float* out) {
  const std::size_t group = layer.heads / layer.kv_heads, v_dim = layer.v_dim;
  const std::size_t partial =
      items.back().partial + (items.back().part_end - items.back().part_begin) * items.back().count * group;
  const std::size_t each = v_dim + 2;
  const bool split = rows <= kSplitRows && partial * each <= partial_floats_ && partial > items.size() * group;
  if (!split) {
    pool_.parallel_for(items.size(), 1, [&](std::size_t from, std::size_t to, unsigned index) {
      const Worker& w = workers_[index];
      for (std::size_t i = from; i < to; ++i) {
        const Item& item = items[i];
        const std::size_t m = item.count * group;
        prepare(layer, item, queries, query_stride, w);
        for (std::size_t q = 0; q < m; ++q)
          start(layer, kv_layer, item, sinks, q, query_of(layer, item, q, queries, query_stride), w, w.total_state[q],
                w.total_acc + q * v_dim);
        for (std::size_t part = item.part_begin; part < item.part_end; ++part) {
          attend_part(layer, kv_layer, item, part, softcap, w, w.part_state, w.part_acc);
          for (std::size_t q = 0; q < m; ++q)
            kernels().merge(w.total_state[q], w.total_acc + q * v_dim, w.part_state[q], w.part_acc + q * v_dim, v_dim);
        }
        for (std::size_t q = 0; q < m; ++q) finish(layer, item, q, w.total_state[q], w.total_acc + q * v_dim, out);
      }
    });
    return;
  }

  std::vector<Task> tasks;
  for (std::size_t i = 0; i < items.size(); ++i)
    for (std::size_t part = items[i].part_begin; part < items[i].part_end; ++part) tasks.push_back({i, part});
  const auto attend = [&] {
    pool_.parallel_for(tasks.size(), 1, [&](std::size_t from, std::size_t to, unsigned index) {
      for (std::size_t i = from; i < to; ++i) {
        const auto [item, part] = tasks[i];
        attend_apart(layer, kv_layer, items[item], part, softcap, queries, query_stride, workers_[index],
                     partial_of(layer, items[item], part, 0));
      }
    });
  };
  attend();
  // Partitions that something came back for are computed again.
  tasks.clear();
  for (const RowRun& run : runs) {
    const auto changed = run.kv->choose_recall(kv_layer, run.count);
    for (std::size_t i = 0; i < items.size(); ++i)
      for (const auto& [head, part] : changed)
        if (items[i].run == &run && items[i].head == head) tasks.push_back({i, part});
  }
  if (!tasks.empty()) {
    for (const RowRun& run : runs)
      if (run.kv->looks_back(kv_layer, run.count)) run.kv->await_recall();
    attend();
  }
  merge_parts(layer, kv_layer, items, queries, query_stride, sinks, out);
}

void Attention::merge_parts(const LayerConfig& layer, std::size_t kv_layer, std::span<const Item> items,
                            const float* queries, std::size_t query_stride, std::span<const float> sinks, float* out) {
  const std::size_t group = layer.heads / layer.kv_heads, v_dim = layer.v_dim;
  pool_.parallel_for(items.size(), 1, [&](std::size_t from, std::size_t to, unsigned index) {
    const Worker& w = workers_[index];
    for (std::size_t i = from; i < to; ++i) {
      const Item& item = items[i];
      const std::size_t m = item.count * group;
      for (std::size_t q = 0; q < m; ++q)
        start(layer, kv_layer, item, sinks, q, query_of(layer, item, q, queries, query_stride), w, w.total_state[q],
              w.total_acc + q * v_dim);
      // Queries by turns: one's merges wait for each other.
      for (std::size_t part = item.part_begin; part < item.part_end; ++part)
        for (std::size_t q = 0; q < m; ++q) {
          const float* p = partial_of(layer, item, part, q);
          kernels().merge(w.total_state[q], w.total_acc + q * v_dim, {p[0], p[1]}, p + 2, v_dim);
        }
      for (std::size_t q = 0; q < m; ++q) finish(layer, item, q, w.total_state[q], w.total_acc + q * v_dim, out);
    }
  });
}

std::vector<Attention::SharedParts> Attention::shared_parts(const LayerConfig& layer, std::size_t kv_layer,
                                                            std::span<const RowRun> runs) const {
  std::vector<SharedParts> found;
  if (layer.window || runs.size() < 2) return found;
  for (const RowRun& run : runs) {
    const bool fits = run.count == 1 && run.position >= kPartTokens && run.kv->parts_on_disk(kv_layer, 1) == 0 &&
                      !run.kv->looks_back(kv_layer, 1);
    if (!fits) continue;
    // Partitions that lie before the row, and that all see in one form.
    const std::size_t own =
        std::min(run.position / kPartTokens, coded_ ? KvFormat::coded_pages(run.position) / kPartPages : run.position);
    const auto place = std::find_if(found.begin(), found.end(), [&](SharedParts& shared) {
      const std::size_t parts = run.kv->same_parts(*shared.runs[0]->kv, kv_layer, std::min(shared.parts, own));
      if (parts == 0 || shared.runs.size() * (layer.heads / layer.kv_heads) + 1 > kBlockQueries) return false;
      shared.parts = parts;
      return true;
    });
    if (place != found.end())
      place->runs.push_back(&run);
    else if (own > 0)
      found.push_back({{&run}, own});
  }
  const auto floats = [&](const SharedParts& shared) {
    std::size_t parts = 0;
    for (const RowRun* run : shared.runs) parts += run->position / kPartTokens + 1;
    return parts * layer.heads * (layer.v_dim + 2);
  };
  std::erase_if(found, [&](const SharedParts& s) { return s.runs.size() < 2 || floats(s) > partial_floats_; });
  return found;
}

void Attention::run_shared(const LayerConfig& layer, std::size_t kv_layer, const SharedParts& shared,
                           const float* queries, std::size_t query_stride, float softcap, std::span<const float> sinks,
                           float* out) {
  const std::size_t group = layer.heads / layer.kv_heads, v_dim = layer.v_dim;
  std::vector<Item> items;  // [run][head]
  std::size_t partial = 0;
  for (const RowRun* run : shared.runs)
    for (std::size_t head = 0; head < layer.kv_heads; ++head) {
      items.push_back({run, 0, 1, head, 0, run->position / kPartTokens + 1, partial});
      partial += items.back().part_end * group;
    }
  std::vector<Task> tasks;  // the first ones are of all runs: item is the head
  for (std::size_t part = 0; part < shared.parts; ++part)
    for (std::size_t head = 0; head < layer.kv_heads; ++head) tasks.push_back({head, part});
  const std::size_t together = tasks.size();
  for (std::size_t i = 0; i < items.size(); ++i)
    for (std::size_t part = shared.parts; part < items[i].part_end; ++part) tasks.push_back({i, part});
  pool_.parallel_for(tasks.size(), 1, [&](std::size_t from, std::size_t to, unsigned index) {
    const Worker& w = workers_[index];
    for (std::size_t i = from; i < to; ++i) {
      const auto [item, part] = tasks[i];
      if (i >= together) {
        attend_apart(layer, kv_layer, items[item], part, softcap, queries, query_stride, w,
                     partial_of(layer, items[item], part, 0));
        continue;
      }
      const std::size_t m = shared.runs.size() * group;
      for (std::size_t r = 0; r < shared.runs.size(); ++r)
        kernels().to_bf16(queries + shared.runs[r]->row * query_stride + item * group * layer.k_dim,
                          group * layer.k_dim, w.queries + r * group * layer.k_dim);
      std::fill_n(w.begin, m, 0u);
      std::fill_n(w.end, m, static_cast<std::uint32_t>(kPartTokens));
      attend_tiles(layer, kv_layer, *shared.runs[0], 0, item, part, shared.parts, m, softcap, w, w.part_state,
                   w.part_acc);
      for (std::size_t r = 0; r < shared.runs.size(); ++r)
        for (std::size_t q = 0; q < group; ++q) {
          float* to_partial = partial_of(layer, items[r * layer.kv_heads + item], part, q);
          to_partial[0] = w.part_state[r * group + q].max;
          to_partial[1] = w.part_state[r * group + q].sum;
          std::copy_n(w.part_acc + (r * group + q) * v_dim, v_dim, to_partial + 2);
        }
    }
  });
  merge_parts(layer, kv_layer, items, queries, query_stride, sinks, out);
}

}  // namespace snug
