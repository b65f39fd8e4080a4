#include "plan/prediction.hpp"

#include <cmath>

namespace snug {

namespace {

// Shares of the limits that are reached (docs/RESULTS.md), and what does not depend on the model's size.
constexpr double kDecodeShare = 1.0, kInt8Share = 0.45, kDiskShare = 1.0;
constexpr double kAheadBytes = 2 << 20;  // with so much to read ahead into, the disk is used half of the time
constexpr double kPackBytes = 12e9;      // per second: read weights are brought into the kernels' layout
constexpr double kDirectBytes = 30e9;    // the same from a pack: only the kernel's work for a direct read
constexpr double kLayerSeconds = 25e-6;  // handing work to the threads, norms, activations

/// Reading and computing overlap, least where both take about the same time; `power` 1: not at all.
double overlapped(double a, double b, double power) {
  return std::pow(std::pow(a, power) + std::pow(b, power), 1 / power);
}
// Measured: where dense weights are decoded there is little to compute for what is read, and memory and disk get in
// each other's way; experts are computed while others are read.
constexpr double kPrefillOverlap = 3, kDenseOverlap = 1, kExpertOverlap = 1.5;

double as_double(std::uint64_t value) {
  return static_cast<double>(value);
}

}  // namespace

Prediction predict(const MemoryPlan& plan, const MachineProfile& machine) {
  Prediction p;
  const bool experts = plan.expert_token_bytes > 0;
  const double ahead = as_double(plan.weights.buffers), kept_busy = experts ? 1 : ahead / (ahead + kAheadBytes);
  const double disk = kDiskShare * kept_busy * machine.disk_bytes_s.at(kStreamBlock);
  const double pack_rate = plan.weights.packed ? kDirectBytes : kPackBytes;
  const double packing = as_double(plan.streamed_bytes) / pack_rate;
  p.disk_seconds = plan.streamed_bytes > 0 ? as_double(plan.streamed_bytes) / disk : 0;
  p.memory_seconds =
      (as_double(plan.step_bytes) + as_double(plan.kv_bytes) / 2) / (kDecodeShare * machine.decode_bytes_s) +
      as_double(plan.layers) * kLayerSeconds + packing;
  p.decode_tok_s = 1.0 / overlapped(p.disk_seconds, p.memory_seconds, experts ? kExpertOverlap : kDenseOverlap);

  const double rows = as_double(plan.max_rows);
  const double streamed =
      as_double(plan.weights.streamed) + as_double(plan.weights.expert_file_bytes) * (1 - plan.weights.expert_share);
  const double compute =
      rows * 2 * as_double(plan.weights_per_token) / (kInt8Share * machine.int8_ops_s) + streamed / pack_rate;
  p.prefill_tok_s = rows / overlapped(compute, streamed > 0 ? streamed / disk : 0, kPrefillOverlap);
  return p;
}

}  // namespace snug
