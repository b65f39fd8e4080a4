#pragma once
/// The functions that every instruction set provides; their meaning is in kernels/kernels.hpp.

#include "kernels/kernels.hpp"

namespace snug::SNUG_ISA_NS {

void quantize(const float* x, const Q8Rows& out, std::size_t row);
void matmul_q8(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const Q8Rows& x, float* y,
               std::size_t y_stride, std::byte* scratch);
void matmul_float(const TileMatrix& w, std::size_t group_begin, std::size_t group_end, const float* x,
                  std::size_t x_rows, std::size_t x_stride, float* y, std::size_t y_stride, std::byte* scratch);

float dot_int8(const float* x, Int8Row y, std::size_t n);
void axpy_int8(float* x, float a, Int8Row y, std::size_t n);

void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* out);
void add(float* x, const float* y, std::size_t n);
void scale(float* x, float factor, std::size_t n);
void multiply(float* x, const float* y, std::size_t n);
void axpy(float* x, float a, const float* y, std::size_t n);
float dot(const float* x, const float* y, std::size_t n);
void silu(float* x, std::size_t n);
void sigmoid(float* x, std::size_t n);
void silu_mul(const float* gate, const float* up, std::size_t n, float* out);
void gelu_mul(const float* gate, const float* up, std::size_t n, float* out);
void swiglu_oai(const float* gate, const float* up, float alpha, float limit, std::size_t n, float* out);
void softmax(float* x, std::size_t n);
void softcap(float* x, float cap, std::size_t n);
float max(const float* x, std::size_t n);
float log_sum_exp(const float* x, std::size_t n);
void rope(float* x, const float* cos, const float* sin, std::size_t pairs, bool split_half);

void to_bf16(const float* x, std::size_t n, bf16_t* out);
void store_key(const float* x, std::size_t dim, std::size_t slot, bf16_t* tile);
void store_value(const float* x, std::size_t dim, std::size_t slot, bf16_t* tile);
void attend(const AttentionPart& part, const bf16_t* queries, std::size_t m, const std::uint32_t* begin,
            const std::uint32_t* end, float softcap, AttentionState* state, float* acc, std::byte* scratch);
void merge(AttentionState& total, float* total_acc, const AttentionState& part, const float* part_acc,
           std::size_t v_dim);

void unpack_kv(const std::byte* page, const KvCodes& codes, bf16_t* tiles);
void kv_excess(const std::byte* page, const KvCodes& codes, float factor, bf16_t* out);
void pack_kv(const bf16_t* tiles, const KvCodes& codes, std::byte* page);

void unpack_kv_blocks(const std::byte* page, const KvBlocks& layout, bf16_t* tiles);
void add_line_codes(const std::byte* page, std::size_t lines, std::size_t bits, float* out);
float line_scale(const float* line, std::size_t bits);

void tiles_to_lines(const bf16_t* tiles, const KvLines& layout, float* lines);
void lines_to_tiles(const float* lines, const KvLines& layout, bf16_t* tiles);
void rotate_lines(float* lines, const KvRotation& rotation, bool back);
void rotate_key_tiles(bf16_t* tiles, std::size_t dim, const KvRotation& rotation);
void multiply_low_rank_kv(const KvLowRank& product, const KvLines& layout, bf16_t* tiles);
void unpack_mixed(const std::byte* page, const KvMixed& layout, bf16_t* tiles);
void unpack_pruned_keys(const std::byte* page, const KvPruned& layout, bf16_t* tiles);

void from_bf16(const bf16_t* x, std::size_t n, float* out);
void add_product(const float* a, const float* b, std::size_t m, std::size_t k, std::size_t n, float* out);

void keys_of_centroids(const std::byte* codes, const bf16_t* centroids, const KvCentroids& layout, bf16_t* tiles);
void values_of_centroids(const std::byte* codes, const bf16_t* centroids, const KvCentroids& layout, bf16_t* tiles);
void nearest_centroids(const float* lines, const float* centroids, const float* bias, std::size_t width,
                       std::byte* codes);

void causal_conv(const float* const* inputs, const float* weights, std::size_t taps, std::size_t n, float* out);
void delta_rule(const float* from, float* to, const DeltaStep& step, float* out);

std::uint64_t read_memory(const std::byte* data, std::size_t bytes);
std::uint64_t int8_dots(std::size_t iterations);

const KernelTable& table();

}  // namespace snug::SNUG_ISA_NS
