#pragma once
/// Pages kept as they are, for one side beside a coded other one.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

std::unique_ptr<KvCodec> make_plain_codec(KvSide side, std::shared_ptr<const KvModel> model);

}  // namespace snug
