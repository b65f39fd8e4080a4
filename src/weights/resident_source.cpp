#include "weights/resident_source.hpp"

#include <algorithm>
#include <limits>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kLoadBytes = 1 << 20;  // per task: large enough for the disk, small enough for the cache

std::uint32_t narrow(std::uint64_t value, const std::string& name) {
  if (value == 0 || value > std::numeric_limits<std::uint32_t>::max())
    fail<FormatError>("tensor {} has a dimension of {}", name, value);
  return static_cast<std::uint32_t>(value);
}

}  // namespace

TileMatrix ResidentSource::Entry::matrix(const std::byte* base, std::uint32_t expert) const {
  TileMatrix m{weight.type, weight.rows, weight.cols, nullptr};
  m.data = base + offset + expert * m.groups() * m.group_bytes();
  return m;
}

Weight ResidentSource::add(const GgufFile& file, const GgufTensor& tensor, bool as_f32) {
  if (!dtype_info(tensor.type).weight)
    fail<FormatError>("tensor {} has type {}, which cannot be multiplied", tensor.name, dtype_info(tensor.type).name);
  Entry entry;
  entry.file = &file.file(tensor.file);
  entry.file_type = tensor.type;
  entry.file_offset = tensor.offset;
  Weight& w = entry.weight;
  w.id = static_cast<std::uint32_t>(entries_.size());
  w.type = as_f32 ? DType::f32 : tensor.type;
  w.cols = narrow(tensor.columns(), tensor.name);
  w.rows = narrow(tensor.shape.size() > 1 ? tensor.shape[1] : 1, tensor.name);
  w.experts = narrow(tensor.shape.size() > 2 ? tensor.shape[2] : 1, tensor.name);
  entry.offset = bytes_;
  bytes_ = checked_add(bytes_, round_up(checked_mul(tile_matrix_bytes(w.type, w.rows, w.cols), w.experts), kAlign));
  entries_.push_back(entry);
  return w;
}

void ResidentSource::load() {
  buffer_ = Buffer(ledger_, Tag::weights, bytes_);
  struct Task {
    const Entry* entry;
    std::size_t begin, end;  // groups over all experts
  };
  std::vector<Task> tasks;
  for (const Entry& e : entries_) {
    const std::size_t groups = e.weight.groups() * e.weight.experts;
    const std::size_t step = std::max<std::size_t>(1, kLoadBytes / (kTileRows * row_bytes(e.file_type, e.weight.cols)));
    for (std::size_t g = 0; g < groups; g += step) tasks.push_back({&e, g, std::min(groups, g + step)});
  }
  std::vector<std::vector<std::byte>> scratch(pool_.size());
  pool_.parallel_for(tasks.size(), 1, [&](std::size_t begin, std::size_t end, unsigned worker) {
    for (std::size_t i = begin; i < end; ++i)
      load_groups(*tasks[i].entry, tasks[i].begin, tasks[i].end, scratch[worker]);
  });
}

void ResidentSource::load_groups(const Entry& entry, std::size_t begin, std::size_t end,
                                 std::vector<std::byte>& scratch) {
  const Weight& w = entry.weight;
  const std::size_t in_row = row_bytes(entry.file_type, w.cols);
  const std::size_t groups = w.groups();
  const bool convert = w.type != entry.file_type;
  std::vector<float> converted(convert ? kTileRows * w.cols : 0);
  // Consecutive groups of an expert are consecutive rows of the file: one read; the rows of expert e start at e * rows.
  for (std::size_t g = begin; g < end;) {
    const std::size_t expert = g / groups, first = g % groups;
    const std::size_t last = std::min(groups, first + (end - g));
    const std::size_t row0 = first * kTileRows, rows = std::min<std::size_t>(w.rows, last * kTileRows) - row0;
    scratch.resize(rows * in_row);
    entry.file->read(entry.file_offset + (expert * w.rows + row0) * in_row, scratch);
    const TileMatrix m = entry.matrix(buffer_.data(), static_cast<std::uint32_t>(expert));
    auto* out = const_cast<std::byte*>(m.data) + first * m.group_bytes();
    for (std::size_t r = 0; r < rows; r += kTileRows, out += m.group_bytes()) {
      const std::size_t n = std::min(kTileRows, rows - r);
      const std::byte* in = scratch.data() + r * in_row;
      if (convert) {
        for (std::size_t i = 0; i < n; ++i)
          dequantize_row(entry.file_type, in + i * in_row, w.cols, converted.data() + i * w.cols);
        in = reinterpret_cast<const std::byte*>(converted.data());
      }
      pack_group(w.type, w.cols, in, n, out);
    }
    g += last - first;
  }
}

WeightSlice ResidentSource::slice(const Weight& weight, std::uint32_t expert, std::size_t group_begin,
                                  std::size_t group_end) {
  TileMatrix m = entries_[weight.id].matrix(buffer_.data(), expert);
  m.data += group_begin * m.group_bytes();
  m.rows = std::min<std::size_t>(m.rows, group_end * kTileRows) - group_begin * kTileRows;
  return {m, nullptr};
}

void ResidentSource::row(const Weight& weight, std::size_t row, float* out) {
  dequantize_packed_row(entries_[weight.id].matrix(buffer_.data(), 0), row, out);
}

}  // namespace snug
