#include "kernels/dtype.hpp"

#include <array>

#include "base/error.hpp"

namespace snug {

namespace {

constexpr std::array<DTypeInfo, 21> kTypes{{
    {DType::f32, "F32", 1, 4, true},         {DType::f16, "F16", 1, 2, true},
    {DType::q4_0, "Q4_0", 32, 18, true},     {DType::q4_1, "Q4_1", 32, 20, true},
    {DType::q5_0, "Q5_0", 32, 22, true},     {DType::q5_1, "Q5_1", 32, 24, true},
    {DType::q8_0, "Q8_0", 32, 34, true},     {DType::q2_k, "Q2_K", 256, 84, true},
    {DType::q3_k, "Q3_K", 256, 110, true},   {DType::q4_k, "Q4_K", 256, 144, true},
    {DType::q5_k, "Q5_K", 256, 176, true},   {DType::q6_k, "Q6_K", 256, 210, true},
    {DType::iq4_nl, "IQ4_NL", 32, 18, true}, {DType::iq4_xs, "IQ4_XS", 256, 136, true},
    {DType::i8, "I8", 1, 1, false},          {DType::i16, "I16", 1, 2, false},
    {DType::i32, "I32", 1, 4, false},        {DType::i64, "I64", 1, 8, false},
    {DType::f64, "F64", 1, 8, false},        {DType::bf16, "BF16", 1, 2, true},
    {DType::mxfp4, "MXFP4", 32, 17, true},
}};

}  // namespace

const DTypeInfo* find_dtype(std::uint32_t ggml_type) {
  for (const DTypeInfo& info : kTypes)
    if (static_cast<std::uint32_t>(info.type) == ggml_type) return &info;
  return nullptr;
}

const DTypeInfo& dtype_info(DType type) {
  return *find_dtype(static_cast<std::uint32_t>(type));
}

std::size_t row_bytes(DType type, std::size_t values) {
  const DTypeInfo& info = dtype_info(type);
  if (values % info.block_values != 0)
    fail<FormatError>("a row of {} values is not a whole number of {} blocks of {}", values, info.name,
                      info.block_values);
  return values / info.block_values * info.block_bytes;
}

}  // namespace snug
