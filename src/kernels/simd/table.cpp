#include "kernels/simd/functions.hpp"

#define SNUG_STRING(x) SNUG_STRING_(x)
#define SNUG_STRING_(x) #x

namespace snug::SNUG_ISA_NS {

const KernelTable& table() {
  static const KernelTable table{.name = SNUG_STRING(SNUG_ISA_NS),
                                 .quantize = quantize,
                                 .matmul_q8 = matmul_q8,
                                 .matmul_float = matmul_float,
                                 .dot_int8 = dot_int8,
                                 .axpy_int8 = axpy_int8,
                                 .rms_norm = rms_norm,
                                 .add = add,
                                 .scale = scale,
                                 .multiply = multiply,
                                 .axpy = axpy,
                                 .dot = dot,
                                 .silu = silu,
                                 .sigmoid = sigmoid,
                                 .silu_mul = silu_mul,
                                 .gelu_mul = gelu_mul,
                                 .swiglu_oai = swiglu_oai,
                                 .softmax = softmax,
                                 .softcap = softcap,
                                 .max = max,
                                 .log_sum_exp = log_sum_exp,
                                 .rope = rope,
                                 .to_bf16 = to_bf16,
                                 .store_key = store_key,
                                 .store_value = store_value,
                                 .attend = attend,
                                 .merge = merge,
                                 .unpack_kv = unpack_kv,
                                 .pack_kv = pack_kv,
                                 .kv_excess = kv_excess,
                                 .unpack_pruned_keys = unpack_pruned_keys,
                                 .unpack_mixed = unpack_mixed,
                                 .multiply_low_rank_kv = multiply_low_rank_kv,
                                 .unpack_kv_blocks = unpack_kv_blocks,
                                 .add_line_codes = add_line_codes,
                                 .line_scale = line_scale,
                                 .tiles_to_lines = tiles_to_lines,
                                 .lines_to_tiles = lines_to_tiles,
                                 .rotate_lines = rotate_lines,
                                 .rotate_key_tiles = rotate_key_tiles,
                                 .from_bf16 = from_bf16,
                                 .add_product = add_product,
                                 .keys_of_centroids = keys_of_centroids,
                                 .values_of_centroids = values_of_centroids,
                                 .nearest_centroids = nearest_centroids,
                                 .causal_conv = causal_conv,
                                 .delta_rule = delta_rule,
                                 .read_memory = read_memory,
                                 .int8_dots = int8_dots};
  return table;
}

}  // namespace snug::SNUG_ISA_NS
