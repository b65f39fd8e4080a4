#pragma once
/// ThinK (arXiv 2407.21018): channels of keys that hardly change scores are left out. Per page and head, a channel's
/// part in the scores is |q_d|^2 |k_d|^2, over the observed queries and the tokens of the page; the 40% with the least
/// go, the others stay in bf16. Keys are rotated, as in the paper. Values stay as they are.
///
/// Unlike in the paper, the mean of such a channel over the page is kept, which is what it says of the page as a whole,
/// and k_d is what differs from that (on qwen2.5-coder-0.5b a third of the divergence from bf16 is left).

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

std::unique_ptr<KvCodec> make_think_codec(KvSide side, std::shared_ptr<const KvModel> model);

}  // namespace snug
