#pragma once
/// The machine's limits, measured: what speeds are a share of.

#include "base/ledger.hpp"
#include "base/thread_pool.hpp"

namespace snug {

/// Best of `repeats` reads of `bytes` by all threads, in bytes per second. Throws OutOfBudget.
double measure_read_bandwidth(ThreadPool& pool, Ledger& ledger, Bytes bytes = kGiB, int repeats = 5);

/// What a decode step gets of it: median of `repeats` products of one row with Q4_K matrices of `bytes` together, in
/// bytes of weights per second. Throws OutOfBudget.
double measure_decode_bandwidth(ThreadPool& pool, Ledger& ledger, Bytes bytes, int repeats);

/// Int8 operations per second of all threads together (multiply and add count as two).
double measure_int8_peak(ThreadPool& pool);

}  // namespace snug
