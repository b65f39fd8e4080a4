#pragma once
/// Data types of tensors. Numbers and block layouts are ggml's (the GGUF specification).

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace snug {

enum class DType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  bf16 = 30,
  mxfp4 = 39,
};

struct DTypeInfo {
  DType type;
  std::string_view name;     ///< as GGUF tools print it: "Q4_K"
  std::size_t block_values;  ///< values per block along a row
  std::size_t block_bytes;
  bool weight;  ///< the kernels can multiply it
};

/// nullptr for a type this build does not know.
const DTypeInfo* find_dtype(std::uint32_t ggml_type);
/// REQUIRES: a value of the enum.
const DTypeInfo& dtype_info(DType type);
/// Bytes of one row of `values`; throws FormatError when values is not a whole number of blocks.
std::size_t row_bytes(DType type, std::size_t values);

}  // namespace snug
