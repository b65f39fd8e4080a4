#pragma once
/// Files that lie beside a model (packs, neurons, routing profiles) say which one they were made of.

#include <cstdint>

#include "format/gguf.hpp"

namespace snug {

/// Tells models apart: their tensors' names, types, shapes and places, and samples of their data.
std::uint64_t model_fingerprint(const GgufFile& model);

}  // namespace snug
