#pragma once
/// Block floating point: per token, blocks of 32 channels share an exponent of 8 bits; mantissas have 4. With
/// `rearrange`, channels of a head are put into blocks by their size, so that a few large ones do not cost all others
/// their bits. A page finds its own arrangement and carries it (8 bits a channel, an eighth of a bit per value):
/// nothing has to be learned, and rotated keys, whose channels change size with the position, get what suits them.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

std::unique_ptr<KvCodec> make_block_codec(KvSide side, std::shared_ptr<const KvModel> model, bool rearrange);

}  // namespace snug
