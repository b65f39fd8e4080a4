// Attention over pages of which some are on the disk: partitions are taken as they come from there, in order, and their
// results merged in the same order as in Attention::run, so results are the same to the bit.

#include <algorithm>

#include "model/attention.hpp"

namespace snug {

void Attention::run_spilled(const LayerConfig& layer, std::size_t kv_layer, std::span<const RowRun> runs,
                            std::span<const Item> items, const float* queries, std::size_t query_stride, float softcap,
                            std::span<const float> sinks, float* out) {
  const std::size_t group = layer.heads / layer.kv_heads, v_dim = layer.v_dim, each = v_dim + 2;
  // What is merged so far stands where the result will.
  std::vector<AttentionState> totals;
  std::vector<std::size_t> first_total;
  const auto acc_of = [&](const Item& item, std::size_t q) {
    const std::size_t row = item.run->row + item.first + q / group;
    return out + (row * layer.heads + item.head * group + q % group) * v_dim;
  };
  for (const Item& item : items) {
    first_total.push_back(totals.size());
    for (std::size_t q = 0; q < item.count * group; ++q) {
      totals.emplace_back();
      start(layer, kv_layer, item, sinks, q, query_of(layer, item, q, queries, query_stride), workers_.front(),
            totals.back(), acc_of(item, q));
    }
  }

  std::vector<Item> now;  // what items of a run do in the present partitions
  std::vector<std::size_t> first;
  const auto attend = [&](std::span<const Item> of_run, std::size_t offset, std::size_t begin, std::size_t end) {
    now.clear(), first.clear();
    std::vector<Task> tasks;
    std::size_t partial = 0;
    for (std::size_t i = 0; i < of_run.size(); ++i) {
      Item item = of_run[i];
      item.part_begin = std::max(item.part_begin, begin), item.part_end = std::min(item.part_end, end);
      if (item.part_begin >= item.part_end) continue;
      item.partial = partial;
      partial += (item.part_end - item.part_begin) * item.count * group;
      for (std::size_t part = item.part_begin; part < item.part_end; ++part) tasks.push_back({now.size(), part});
      now.push_back(item), first.push_back(first_total[offset + i]);
    }
    const auto partial_of = [&](const Item& item, std::size_t part, std::size_t q) {
      return partials_ + (item.partial + (part - item.part_begin) * item.count * group + q) * each;
    };
    if (now.size() < 4 * pool_.size() && partial * each <= partial_floats_) {
      pool_.parallel_for(tasks.size(), 1, [&](std::size_t from, std::size_t to, unsigned index) {
        for (std::size_t i = from; i < to; ++i) {
          const auto [item, part] = tasks[i];
          attend_apart(layer, kv_layer, now[item], part, softcap, queries, query_stride, workers_[index],
                       partial_of(now[item], part, 0));
        }
      });
      for (std::size_t i = 0; i < now.size(); ++i)
        for (std::size_t q = 0; q < now[i].count * group; ++q)
          for (std::size_t part = now[i].part_begin; part < now[i].part_end; ++part) {
            const float* p = partial_of(now[i], part, q);
            kernels().merge(totals[first[i] + q], acc_of(now[i], q), {p[0], p[1]}, p + 2, v_dim);
          }
      return;
    }
    pool_.parallel_for(now.size(), 1, [&](std::size_t from, std::size_t to, unsigned index) {
      const Worker& w = workers_[index];
      for (std::size_t i = from; i < to; ++i) {
        prepare(layer, now[i], queries, query_stride, w);
        for (std::size_t part = now[i].part_begin; part < now[i].part_end; ++part) {
          attend_part(layer, kv_layer, now[i], part, softcap, w, w.part_state, w.part_acc);
          for (std::size_t q = 0; q < now[i].count * group; ++q)
            kernels().merge(totals[first[i] + q], acc_of(now[i], q), w.part_state[q], w.part_acc + q * v_dim, v_dim);
        }
      }
    });
  };

  std::size_t offset = 0;
  for (const RowRun& run : runs) {
    std::size_t count = 0, parts = 0;
    for (; offset + count < items.size() && items[offset + count].run == &run; ++count)
      parts = std::max(parts, items[offset + count].part_end);
    const std::size_t spilled = run.kv->parts_on_disk(kv_layer, run.count);
    std::size_t part = 0;
    while (part < spilled) {
      const KvStore::Loan loan = run.kv->borrow(kv_layer, part);
      attend(items.subspan(offset, count), offset, part, loan.end);
      part = loan.end;
    }
    attend(items.subspan(offset, count), offset, part, parts);
    offset += count;
  }
  for (std::size_t i = 0; i < items.size(); ++i)
    for (std::size_t q = 0; q < items[i].count * group; ++q)
      finish(layer, items[i], q, totals[first_total[i] + q], acc_of(items[i], q), out);
}

}  // namespace snug
