#pragma once
/// GEAR (arXiv 2403.05527): integers for most of a page, its outliers as they are, and a product of low rank for the
/// error that the integers leave. Keys per channel, values per token, over a whole page (64 tokens; groups of 64
/// channels). The integers' ends are fitted: what an outlier would have stretched them to is kept apart already, and
/// the rest of the tail costs less clipped than covered. With that, rank 2 is enough.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

std::unique_ptr<KvCodec> make_gear_codec(KvSide side, std::shared_ptr<const KvModel> model, std::size_t bits);

}  // namespace snug
