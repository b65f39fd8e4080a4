#pragma once
/// The machine's limits, measured: what speeds are a share of.

#include "base/ledger.hpp"
#include "base/thread_pool.hpp"

namespace snug {

/// Best of `repeats` reads of `bytes` by all threads, in bytes per second. Throws OutOfBudget.
double measure_read_bandwidth(ThreadPool& pool, Ledger& ledger, Bytes bytes = kGiB, int repeats = 5);

/// Int8 operations per second of all threads together (multiply and add count as two).
double measure_int8_peak(ThreadPool& pool);

}  // namespace snug
