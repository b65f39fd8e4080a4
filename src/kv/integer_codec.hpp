#pragma once
/// Asymmetric integers: keys per channel over `group` tokens, values per token over `group` channels. Keys have a few
/// channels that are much larger than the rest, which per-channel scales keep from ruining the others (KIVI, arXiv
/// 2402.02750).

#include <memory>

#include "kernels/kv_codes.hpp"
#include "kv/kv_codec.hpp"

namespace snug {

/// One head's page of integers, as kernels unpack and multiply it.
KvCodes integer_page(KvSide side, std::size_t dim, std::size_t bits, std::size_t group);

std::unique_ptr<KvCodec> make_integer_codec(KvSide side, std::shared_ptr<const KvModel> model, std::size_t bits,
                                            std::size_t group);
/// One bit, keys per channel, values per token: each group of 32 has two levels, the means of its lower and its upper
/// values, which outliers move far less than they move the extremes (after Visual KV, 1-bit group quantisation).
std::unique_ptr<KvCodec> make_group_bit_codec(KvSide side, std::shared_ptr<const KvModel> model);

}  // namespace snug
