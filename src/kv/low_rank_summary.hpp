#pragma once
/// What tokens that left the cache still add to attention (LESS, arXiv 2402.09398). Of each KV head of a layer a
/// numerator H f32[rank][v_dim] = sum of psi(k) v^T and a denominator z f32[rank] = sum of psi(k): a query with
/// features phi(q) gives them the weight phi(q) . z and the value phi(q) H, beside exp(q . k) of the tokens that are
/// there.

#include <functional>

#include "base/buffer.hpp"
#include "kv/kv_shape.hpp"

namespace snug {

class LowRankSummary {
public:
  /// phi of a query (f32[k_dim], scaled and rotated) of query head `head`: f32[rank], none below 0.
  using Features = std::function<void(std::size_t head, const float* query, float* features)>;

  /// Empty; charged to the ledger. Throws OutOfBudget.
  LowRankSummary(Ledger& ledger, const KvShape& shape, std::size_t rank, Features features);

  /// A token leaves the cache: psi(key) f32[rank], its value f32[v_dim].
  void add(std::size_t kv_head, const float* psi, const float* value);
  /// What a query of `head` meets: writes phi(q) H (f32[v_dim]) and returns phi(q) . z, both relative to a score of 0.
  float attend(std::size_t kv_head, std::size_t head, const float* query, float* out) const;
  Bytes memory_bytes() const { return memory_.size(); }

private:
  /// Of a head: its numerator, then its denominator.
  float* of(std::size_t kv_head) const {
    return reinterpret_cast<float*>(memory_.data()) + kv_head * rank_ * (v_dim_ + 1);
  }

  std::size_t rank_, v_dim_;
  Features features_;
  Buffer memory_;
};

}  // namespace snug
