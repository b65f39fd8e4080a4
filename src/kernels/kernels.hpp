#pragma once
/// The kernels of one instruction set, chosen once at start (or by SNUG_ISA=scalar|avx2|avx512|neon, checked against
/// the CPU). All functions are re-entrant and single-threaded: callers split the work.
///
/// A result never depends on how work was split: row r of a product depends on row r of the input and on the weights
/// only, and is accumulated along K in one fixed order, whether 1 or 512 rows are multiplied.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/int8_row.hpp"
#include "kernels/q8_rows.hpp"
#include "kernels/tile_matrix.hpp"

namespace snug {

using bf16_t = std::uint16_t;

struct AttentionPart;   // kernels/attention_part.hpp
struct AttentionState;  // the same
struct KvBlocks;
struct KvCentroids;
struct KvCodes;
struct KvLines;
struct KvLowRank;
struct KvMixed;
struct KvPruned;
struct KvRotation;

/// One token of a gated delta rule head: S = decay * S; S += key (beta * (value - S^T key))^T; out = S^T query.
struct DeltaStep {
  const float *query, *key, *value;  ///< f32[k_dim], f32[k_dim], f32[v_dim]
  float decay, beta;
  std::size_t k_dim, v_dim;  ///< v_dim a multiple of 16
};

struct KernelTable {
  std::string_view name;

  // --- products (matmul.cpp) ---
  /// x (f32[out.k]) quantised as row `row` of `out`.
  void (*quantize)(const float* x, const Q8Rows& out, std::size_t row);
  /// y[r * y_stride + n - 16 * group_begin] = sum_k W[n, k] x[r, k] for every row r of x and n in the 16-row groups
  /// [group_begin, group_end) (padding rows included: y must hold whole groups). Quantised W.
  /// `scratch`: matmul_scratch_bytes(), 64-byte aligned, private to the caller's thread.
  void (*matmul_q8)(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const Q8Rows& x, float* y,
                    std::size_t y_stride, std::byte* scratch);
  /// The same for f32, f16 and bf16 weights with f32 input rows.
  void (*matmul_float)(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const float* x,
                       std::size_t x_rows, std::size_t x_stride, float* y, std::size_t y_stride, std::byte* scratch);

  // --- single rows of weights (int8_row.cpp), n a multiple of 32 ---
  float (*dot_int8)(const float* x, Int8Row y, std::size_t n);
  void (*axpy_int8)(float* x, float a, Int8Row y, std::size_t n);  ///< x += a * y

  // --- elementwise (elementwise.cpp), f32[n] unless said ---
  /// out = x / sqrt(mean(x^2) + eps) * weight; weight may be null; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::size_t n, float* out);
  void (*add)(float* x, const float* y, std::size_t n);            ///< x += y
  void (*scale)(float* x, float factor, std::size_t n);            ///< x *= factor
  void (*multiply)(float* x, const float* y, std::size_t n);       ///< x *= y
  void (*axpy)(float* x, float a, const float* y, std::size_t n);  ///< x += a * y
  float (*dot)(const float* x, const float* y, std::size_t n);
  void (*silu)(float* x, std::size_t n);
  void (*sigmoid)(float* x, std::size_t n);
  void (*silu_mul)(const float* gate, const float* up, std::size_t n, float* out);  ///< silu(gate) * up
  void (*gelu_mul)(const float* gate, const float* up, std::size_t n, float* out);  ///< gelu_tanh(gate) * up
  /// gpt-oss: g = min(gate, limit), u = clamp(up, +-limit); g * sigmoid(alpha * g) * (u + 1)
  void (*swiglu_oai)(const float* gate, const float* up, float alpha, float limit, std::size_t n, float* out);
  void (*softmax)(float* x, std::size_t n);
  void (*softcap)(float* x, float cap, std::size_t n);  ///< cap * tanh(x / cap)
  float (*max)(const float* x, std::size_t n);
  float (*log_sum_exp)(const float* x, std::size_t n);
  /// Rotates the first 2 * pairs values of x; pair i is (x[i], x[i + pairs]) if `split_half` (NEOX) else (x[2i],
  /// x[2i+1]).
  void (*rope)(float* x, const float* cos, const float* sin, std::size_t pairs, bool split_half);

  // --- attention (attention.cpp) ---
  void (*to_bf16)(const float* x, std::size_t n, bf16_t* out);  ///< round to nearest even
  /// Stores one token's key / value (f32[dim]) in slot 0..15 of a tile.
  void (*store_key)(const float* x, std::size_t dim, std::size_t slot, bf16_t* tile);
  void (*store_value)(const float* x, std::size_t dim, std::size_t slot, bf16_t* tile);
  /// Attention of m queries (bf16[m][k_dim], already scaled) over the tokens [begin[i], end[i]) of one part (offsets
  /// within the part; an empty range gives max = -inf, sum = 0, acc = 0). softcap 0: none. Writes state[m] and
  /// acc[m][v_dim] (unnormalised). `scratch`: attention_scratch_bytes(m), private to the thread.
  void (*attend)(const AttentionPart& part, const bf16_t* queries, std::size_t m, const std::uint32_t* begin,
                 const std::uint32_t* end, float softcap, AttentionState* state, float* acc, std::byte* scratch);
  /// Folds `part` into `total` (call in order of token index).
  void (*merge)(AttentionState& total, float* total_acc, const AttentionState& part, const float* part_acc,
                std::size_t v_dim);

  // --- coded pages of keys or values (kv_codes.cpp) ---
  /// codes.bytes() of `page` to the tiles of a page, and back (finite values; nearest codes; outliers and the product
  /// of low rank are the codec's to write).
  void (*unpack_kv)(const std::byte* page, const KvCodes& codes, bf16_t* tiles);
  void (*pack_kv)(const bf16_t* tiles, const KvCodes& codes, std::byte* page);
  /// out[groups][depth] = factor times the squares of the page's scales.
  void (*kv_excess)(const std::byte* page, const KvCodes& codes, float factor, bf16_t* out);

  /// The key tiles of a page some channels of which are left out (kv_pruned.cpp); of a damaged page, any.
  void (*unpack_pruned_keys)(const std::byte* page, const KvPruned& layout, bf16_t* tiles);
  /// The tiles of a page of kept and coded tokens, dim <= 512 (kv_mixed.cpp).
  void (*unpack_mixed)(const std::byte* page, const KvMixed& layout, bf16_t* tiles);
  /// The tiles of a page that is a product of integers; its lines are a multiple of 16 (kv_low_rank.cpp).
  void (*multiply_low_rank_kv)(const KvLowRank& product, const KvLines& layout, bf16_t* tiles);
  /// unpack_kv() of block floating point (kv_blocks.cpp).
  void (*unpack_kv_blocks)(const std::byte* page, const KvBlocks& layout, bf16_t* tiles);
  /// Adds what `lines` coded lines stand for (kv_predict.hpp) to out[lines][64] (kv_predict.cpp).
  void (*add_line_codes)(const std::byte* page, std::size_t lines, std::size_t bits, float* out);
  /// The scale for which line[64] in such integers has the least squared error; 0 for nothing but zeros.
  float (*line_scale)(const float* line, std::size_t bits);

  // --- pages of one head in f32 (kv_lines.cpp) ---
  void (*tiles_to_lines)(const bf16_t* tiles, const KvLines& layout, float* lines);
  void (*lines_to_tiles)(const float* lines, const KvLines& layout, bf16_t* tiles);
  /// Lines of keys, in place; `back`: the other way round.
  void (*rotate_lines)(float* lines, const KvRotation& rotation, bool back);
  /// Key tiles of a page, in place. With split_half, the number of pairs is even.
  void (*rotate_key_tiles)(bf16_t* tiles, std::size_t dim, const KvRotation& rotation);

  void (*from_bf16)(const bf16_t* x, std::size_t n, float* out);  ///< n a multiple of 16
  /// out (f32[m][n]) += a (f32[m][k]) * b (f32[k][n]).
  void (*add_product)(const float* a, const float* b, std::size_t m, std::size_t k, std::size_t n, float* out);

  // --- codes of coupled channels (kv_centroids.cpp) ---
  /// layout.page_bytes() of codes to the tiles of a page.
  void (*keys_of_centroids)(const std::byte* codes, const bf16_t* centroids, const KvCentroids& layout, bf16_t* tiles);
  void (*values_of_centroids)(const std::byte* codes, const bf16_t* centroids, const KvCentroids& layout,
                              bf16_t* tiles);
  /// The codes of 64 tokens in one group: lines is f32[width][64], centroids f32[256][width]; the first code with the
  /// largest bias[code] + lines . centroid.
  void (*nearest_centroids)(const float* lines, const float* centroids, const float* bias, std::size_t width,
                            std::byte* codes);

  // --- recurrent layers (recurrent.cpp) ---
  /// out[c] = silu(sum_t inputs[t][c] * weights[t][c]), n a multiple of 16.
  void (*causal_conv)(const float* const* inputs, const float* weights, std::size_t taps, std::size_t n, float* out);
  /// The state, f32[v_dim / 16][k_dim][16], goes from `from` to `to` (may be the same); out is f32[v_dim].
  void (*delta_rule)(const float* from, float* to, const DeltaStep& step, float* out);

  // --- limits (probe.cpp) ---
  /// Reads all of `data` (a multiple of 512 bytes) as fast as it goes; the result only keeps the reads alive.
  std::uint64_t (*read_memory)(const std::byte* data, std::size_t bytes);
  /// Int8 dot products on registers alone; returns the number of operations (a multiply and an add count as two).
  std::uint64_t (*int8_dots)(std::size_t iterations);
};

/// Scratch a thread needs for products over rows of `cols` values / for attention of m queries.
std::size_t matmul_scratch_bytes(std::size_t cols);
std::size_t attention_scratch_bytes(std::size_t m);

/// The table in use. Throws UsageError when SNUG_ISA names one that this CPU or build does not have.
const KernelTable& kernels();
/// Every table that this CPU can run, scalar first (tests).
std::vector<const KernelTable*> available_kernels();

}  // namespace snug
