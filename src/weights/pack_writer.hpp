#pragma once
/// Writes the pack of a model (format/pack.hpp).

#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.hpp"
#include "weights/stored_tensor.hpp"

namespace snug {

/// Tensors whose experts lie side by side in a pack; a matrix that is no part of experts is alone.
using PackUnit = std::vector<const StoredTensor*>;

/// Writes `path` whole or not at all, units in this order. `progress` hears of the bytes that are written, and of all.
/// Throws IoError, among others when the disk has too little room (beforehand, if it is known).
void write_pack(const std::string& path, std::uint64_t model, const std::vector<PackUnit>& units, ThreadPool& pool,
                const std::function<void(Bytes done, Bytes all)>& progress);

}  // namespace snug
