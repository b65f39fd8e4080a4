#include "kv/low_rank_summary.hpp"

#include <algorithm>
#include <vector>

namespace snug {

LowRankSummary::LowRankSummary(Ledger& ledger, const KvShape& shape, std::size_t rank, Features features)
    : rank_(rank),
      v_dim_(shape.v_dim),
      features_(std::move(features)),
      memory_(ledger, Tag::kv, shape.kv_heads * rank * (shape.v_dim + 1) * sizeof(float)) {
  std::fill_n(of(0), shape.kv_heads * rank * (v_dim_ + 1), 0.0f);
}

void LowRankSummary::add(std::size_t kv_head, const float* psi, const float* value) {
  float *numerator = of(kv_head), *denominator = numerator + rank_ * v_dim_;
  for (std::size_t r = 0; r < rank_; ++r) {
    kernels().axpy(numerator + r * v_dim_, psi[r], value, v_dim_);
    denominator[r] += psi[r];
  }
}

float LowRankSummary::attend(std::size_t kv_head, std::size_t head, const float* query, float* out) const {
  std::vector<float> phi(rank_);
  features_(head, query, phi.data());
  const float *numerator = of(kv_head), *denominator = numerator + rank_ * v_dim_;
  std::fill_n(out, v_dim_, 0.0f);
  float sum = 0;
  for (std::size_t r = 0; r < rank_; ++r) {
    kernels().axpy(out, phi[r], numerator + r * v_dim_, v_dim_);
    sum += phi[r] * denominator[r];
  }
  return sum;
}

}  // namespace snug
