#include "model/linear.hpp"

#include <algorithm>
#include <cstring>

namespace snug {

namespace {

/// A run of groups of one job, for a run of its rows.
struct Chunk {
  std::size_t job, begin, end, row, rows;
};

constexpr std::size_t kPartRows = 128;  // enough to be worth unpacking the weights for

/// Splits jobs of `groups(job)` groups into chunks. Many rows are split among the workers first, as all work on rows
/// is: then each finds its rows in its own caches.
template <class Jobs, class Groups>
std::vector<Chunk> split(const Jobs& jobs, std::size_t most_parts, Groups groups) {
  std::vector<Chunk> chunks;
  const std::size_t parts = std::clamp<std::size_t>(jobs[0].input.rows / kPartRows, 1, most_parts);
  for (std::size_t p = 0; p < parts; ++p)
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      const std::size_t rows = jobs[j].input.rows, row = rows * p / parts, row_end = rows * (p + 1) / parts;
      for (std::size_t g = 0, n = groups(jobs[j]); g < n; g += kChunkGroups)
        chunks.push_back({j, g, std::min(n, g + kChunkGroups), row, row_end - row});
    }
  return chunks;
}

Input rows_of(const Input& input, std::size_t row, std::size_t rows) {
  const Q8Rows& q8 = input.q8;
  return {input.f32 + row * input.stride, input.stride, {q8.data + row * q8.stride(), rows, q8.k}, rows};
}

}  // namespace

Products::Products(Ledger& ledger, ThreadPool& pool, WeightSource& source, std::size_t max_rows, std::size_t max_cols)
    : pool_(pool), source_(source) {
  const std::size_t matmul = round_up(matmul_scratch_bytes(max_cols), 64);
  const std::size_t columns = column_bytes(max_rows) / 2, each = matmul + 2 * columns;
  memory_ = Buffer(ledger, Tag::scratch, each * pool.size());
  for (unsigned i = 0; i < pool.size(); ++i) {
    std::byte* at = memory_.data() + i * each;
    workers_.push_back({at, reinterpret_cast<float*>(at + matmul), reinterpret_cast<float*>(at + matmul + columns)});
  }
}

void Products::product(const Linear& linear, std::uint32_t expert, std::size_t begin, std::size_t end,
                       const Input& input, float* y, std::size_t y_stride, std::byte* scratch) {
  const WeightSlice slice = source_.slice(linear.weight, expert, linear.group_begin + begin, linear.group_begin + end);
  if (linear.quantised())
    kernels().matmul_q8(slice.matrix, 0, end - begin, input.q8, y, y_stride, scratch);
  else
    kernels().matmul_float(slice.matrix, 0, end - begin, input.f32, input.rows, input.stride, y, y_stride, scratch);
  if (linear.bias.empty()) return;
  const std::size_t first = begin * kTileRows, n = std::min(linear.rows, end * kTileRows) - first;
  for (std::size_t r = 0; r < input.rows; ++r)
    kernels().add(y + r * y_stride, linear.bias.data() + expert * linear.rows + first, n);
}

void Products::run(std::span<const Job> jobs) {
  const auto chunks =
      split(jobs, source_.streams() ? 1 : pool_.size(), [](const Job& job) { return job.linear->groups(); });
  // Long runs of weights keep the memory pipe full; several per worker keep both ends together.
  const bool few = jobs[0].input.rows <= kFewRows;
  const std::size_t grain = few ? std::clamp<std::size_t>(chunks.size() / (pool_.size() * 4), 1, 8) : 1;
  share_out(chunks.size(), grain, jobs[0].linear->bytes(), [&](std::size_t from, std::size_t to, unsigned worker) {
    for (std::size_t i = from; i < to; ++i) {
      const Chunk& c = chunks[i];
      const Job& job = jobs[c.job];
      const std::size_t first = c.begin * kTileRows, n = std::min(job.linear->rows, c.end * kTileRows) - first;
      const WorkerScratch& scratch = workers_[worker];
      const Input input = rows_of(job.input, c.row, c.rows);
      float* out = job.out + c.row * job.stride + first;
      if (!job.add && n % kTileRows == 0) {
        product(*job.linear, job.expert, c.begin, c.end, input, out, job.stride, scratch.matmul);
        continue;
      }
      product(*job.linear, job.expert, c.begin, c.end, input, scratch.first, kChunkColumns, scratch.matmul);
      for (std::size_t r = 0; r < c.rows; ++r, out += job.stride) {
        const float* in = scratch.first + r * kChunkColumns;
        if (job.add)
          kernels().add(out, in, n);
        else
          std::copy_n(in, n, out);
      }
    }
  });
}

void Products::run_gated(std::span<const GatedJob> jobs, Act act) {
  const auto chunks =
      split(jobs, source_.streams() ? 1 : pool_.size(), [](const GatedJob& job) { return job.gate->groups(); });
  share_out(chunks.size(), 1, jobs[0].gate->bytes(), [&](std::size_t from, std::size_t to, unsigned worker) {
    for (std::size_t i = from; i < to; ++i) {
      const Chunk& c = chunks[i];
      const GatedJob& job = jobs[c.job];
      const std::size_t first = c.begin * kTileRows, n = std::min(job.gate->rows, c.end * kTileRows) - first;
      const WorkerScratch& s = workers_[worker];
      const Input input = rows_of(job.input, c.row, c.rows);
      product(*job.gate, job.expert, c.begin, c.end, input, s.first, kChunkColumns, s.matmul);
      const float* up = job.up->rows == 0 ? s.first : s.second;
      if (job.up->rows > 0) product(*job.up, job.expert, c.begin, c.end, input, s.second, kChunkColumns, s.matmul);
      for (std::size_t r = 0; r < c.rows; ++r)
        act(s.first + r * kChunkColumns, up + r * kChunkColumns, n, job.out + (c.row + r) * job.gate->rows + first);
    }
  });
}

}  // namespace snug
