#pragma once
/// One bit with two levels per group of 32, keys per channel, values per token: the means of the values below and not
/// below the group's mean.

#include "kv/references/integers.hpp"

namespace snug::reference {

class GroupBit final : public ReferenceCodec {
public:
  using ReferenceCodec::ReferenceCodec;

protected:
  void reconstruct(KvPlace, PlainPage& page) const override {
    for_each_group(side(), page, 32, [](std::vector<float>& group) {
      double mean = 0;
      for (const float x : group) mean += x;
      mean /= static_cast<double>(group.size());
      double sum[2] = {}, count[2] = {};
      for (const float x : group) sum[x >= mean] += x, ++count[x >= mean];
      for (float& x : group) x = static_cast<float>(sum[x >= mean] / count[x >= mean]);
    });
  }
};

inline std::unique_ptr<KvCodec> group_bit(KvSide side, std::shared_ptr<const KvModel> model) {
  return std::make_unique<GroupBit>(side, std::move(model));
}

}  // namespace snug::reference
