#pragma once
/// The memory that attention needs beside its operands: one block of queries at a time, small enough for the L1 cache.

#include <cstddef>
#include <cstdint>

#include "kernels/attention_part.hpp"

namespace snug {

struct AttentionScratch {
  alignas(64) float scores[kAttentionBlock * kPartTokens];
  alignas(64) bf16_t probabilities[kAttentionBlock * kPartTokens];
  alignas(64) bf16_t queries[kAttentionBlock * 256];
  alignas(64) bf16_t squares[kAttentionBlock * kMostHeadDim];  ///< of queries
};

/// attention_scratch_bytes() leaves room for any alignment of `scratch`.
inline AttentionScratch& align_attention_scratch(std::byte* scratch) {
  const auto misaligned = reinterpret_cast<std::uintptr_t>(scratch) % alignof(AttentionScratch);
  return *reinterpret_cast<AttentionScratch*>(scratch + (misaligned == 0 ? 0 : alignof(AttentionScratch) - misaligned));
}

}  // namespace snug
