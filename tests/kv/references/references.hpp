#pragma once
/// The table of references: for a method of kv_methods() the slow, plain form of its paper that it is held against, in
/// tests on made-up pages and by `kv_reference` on a model.

#include "kv/references/aqua.hpp"
#include "kv/references/block_floats.hpp"
#include "kv/references/coupled.hpp"
#include "kv/references/gear.hpp"
#include "kv/references/group_bit.hpp"
#include "kv/references/integers.hpp"
#include "kv/references/low_rank.hpp"
#include "kv/references/mikv.hpp"
#include "kv/references/minicache.hpp"
#include "kv/references/sparse.hpp"
#include "kv/references/think.hpp"

namespace snug::reference {

struct KvReference {
  std::string_view method;
  std::unique_ptr<KvCodec> (*make)(KvSide side, std::shared_ptr<const KvModel> model);
  /// What our squared error may be, as a share of the reference's, beside the rounding to bf16.
  double slack = 1.02;
};

// clang-format off
inline constexpr KvReference kReferences[] = {
    {"q8", integers<8, 64>},
    {"q4", integers<4, 64>},
    {"kivi-4", integers<4, 32>},
    {"kivi-2", integers<2, 32>},
    {"gear-4", gear<4>},
    {"gear-2", gear<2>},
    {"bfp-4", block_floats<true>},
    {"bfp-4-plain", block_floats<false>},
    {"group-1", group_bit},
    {"int-1", integers<1, 64>},
    {"cq-2", coupled_2},
    {"cq-1", coupled_1},
    {"cskv-50", low_rank},
    {"csr-1", sparse, 1.4},  // whose coefficients are not rounded
    {"minicache", minicache},
    {"aqua-2", aqua},
    {"think-40", think},
    {"mikv-2", mikv},
};
// clang-format on

}  // namespace snug::reference
