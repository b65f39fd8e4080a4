#pragma once
/// Sparse codes over a learned dictionary (CSR, arXiv 2412.11741): a key (before rotation) or value of a head is its
/// mean plus a few atoms times coefficients, found by matching pursuit. 16 bits for every 16 channels: an atom out of
/// 1024, and a coefficient of 6 bits (sign and magnitude, in steps of 2^(1/4)). Heads of a layer share the dictionary.
///
/// The dictionary is found by plain gradient descent on the squared error of what is sampled, codes anew at each step
/// (the paper's NeuralDict trains a small network to the same end); keys are weighed as in coupled_codec.hpp.

#include <memory>

#include "kv/kv_codec.hpp"

namespace snug {

inline constexpr std::size_t kAtoms = 1024, kAtomChannels = 16;

/// Throws FormatError when `learned` is not of such a model.
std::unique_ptr<KvCodec> make_sparse_codec(KvSide side, std::shared_ptr<const KvModel> model, const KvTables& learned);

/// "key.atoms" f32[1024][dim] of length 1, "key.mean" and "key.factor" f32[kv_heads * dim], "key.largest" f32[1] of
/// each layer: (x - mean) * factor is about a sum of atoms times coefficients of at most `largest`. "value" alike.
KvTables learn_sparse(const KvLearning& from);

/// Finds codes of 64 vectors at a time. Not thread-safe.
class Pursuit {
public:
  /// `atoms`: f32[1024][dim].
  Pursuit(const float* atoms, std::size_t dim, float largest);

  /// x: f32[dim][64], in the end what is left of it. codes: [dim / 16][64].
  void run(float* x, std::uint16_t* codes);
  /// Of a code.
  static std::size_t atom(std::uint16_t code) { return code >> 6; }
  static float coefficient(std::uint16_t code, float largest);

private:
  const float* atoms_;
  std::size_t dim_;
  float largest_;
  std::vector<float> products_;  ///< [1024][64]
};

}  // namespace snug
