#include "kernels/attention_scratch.hpp"

namespace snug {

std::size_t attention_scratch_bytes(std::size_t /*m*/) {
  return sizeof(AttentionScratch) + alignof(AttentionScratch);
}

}  // namespace snug
