#pragma once
/// MiKV (arXiv 2402.18096): of a page and head, the 16 tokens that the observed queries attend to most stay in bf16,
/// keys and values; the others are kept in 2 bits, in groups of 32 channels of a token. A channel of keys is multiplied
/// by b = sqrt(max |q| / max |k|) before that, so that channels with outliers do not take the others' precision, and
/// divided by it after.
///
/// Two things are not the paper's. What a query attends to is its softmax over the page: queries count alike, however
/// little they look at the page. And from keys the mean of each channel over the coded tokens is taken off first: some
/// models add a bias to keys, which is far larger in a few channels than all that differs between tokens. Attention is
/// told how much coded keys scatter (KvCodec::key_excess).

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

inline constexpr std::size_t kImportantTokens = kPageTokens / 4;

std::unique_ptr<KvCodec> make_mikv_codec(KvSide side, std::shared_ptr<const KvModel> model);

}  // namespace snug
