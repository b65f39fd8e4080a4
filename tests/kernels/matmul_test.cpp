// Every type, path and instruction set gives the same bits as the scalar kernels with one row; the scalar kernels agree
// with the dequantised reference in double precision.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernels.hpp"

namespace snug {
namespace {

constexpr DType kQuantised[] = {DType::q4_0,   DType::q4_1,   DType::q5_0, DType::q5_1, DType::q8_0,
                                DType::q2_k,   DType::q3_k,   DType::q4_k, DType::q5_k, DType::q6_k,
                                DType::iq4_nl, DType::iq4_xs, DType::mxfp4};

void put_half(std::byte* p, float value) {
  // Positive normal numbers only: enough for scales.
  int exponent;
  const float mantissa = std::frexp(value, &exponent);
  const auto bits = static_cast<std::uint16_t>(((exponent + 14) << 10) | (static_cast<int>(mantissa * 2048) & 1023));
  std::memcpy(p, &bits, 2);
}

/// Random blocks with sane scales.
std::vector<std::byte> random_rows(DType type, std::size_t rows, std::size_t cols, std::mt19937& random) {
  std::vector<std::byte> bytes(rows * row_bytes(type, cols));
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  const std::size_t block = dtype_info(type).block_bytes;
  std::uniform_real_distribution<float> scale(0.001f, 0.02f);
  for (std::size_t at = 0; at < bytes.size(); at += block) {
    std::byte* p = bytes.data() + at;
    switch (type) {
      case DType::f32: {
        const float v = scale(random) - 0.01f;
        std::memcpy(p, &v, 4);
        break;
      }
      case DType::f16:
        put_half(p, scale(random));
        break;
      case DType::bf16:
        p[1] = static_cast<std::byte>(0x3C | (random() & 0x80));
        break;
      case DType::q4_1:
      case DType::q5_1:
      case DType::q4_k:
      case DType::q5_k:
        put_half(p + 2, scale(random));
        [[fallthrough]];
      case DType::q4_0:
      case DType::q5_0:
      case DType::q8_0:
      case DType::iq4_nl:
      case DType::iq4_xs:
        put_half(p, scale(random));
        break;
      case DType::q2_k:
        put_half(p + 80, scale(random));
        put_half(p + 82, scale(random));
        break;
      case DType::q3_k:
        put_half(p + 108, scale(random));
        break;
      case DType::q6_k:
        put_half(p + 208, scale(random));
        break;
      case DType::mxfp4:
        *p = static_cast<std::byte>(118 + random() % 6);
        break;
      default:
        break;
    }
  }
  return bytes;
}

struct Packed {
  Packed(DType type, std::size_t rows, std::size_t cols, std::mt19937& random)
      : raw(random_rows(type, rows, cols, random)) {
    bytes.resize(tile_matrix_bytes(type, rows, cols));
    matrix = {type, rows, cols, bytes.data()};
    const std::size_t stride = row_bytes(type, cols);
    for (std::size_t g = 0; g < matrix.groups(); ++g)
      pack_group(type, cols, raw.data() + g * kTileRows * stride, std::min(kTileRows, rows - g * kTileRows),
                 bytes.data() + g * matrix.group_bytes());
  }
  std::vector<std::byte> raw, bytes;
  TileMatrix matrix;
};

struct Quantised {
  Quantised(const KernelTable& table, const std::vector<float>& x, std::size_t rows, std::size_t k)
      : memory(rows * Q8Rows::stride_for(k) + 64) {
    auto* aligned = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    q8 = {aligned, rows, k};
    for (std::size_t r = 0; r < rows; ++r) table.quantize(x.data() + r * k, q8, r);
  }
  std::vector<std::byte> memory;
  Q8Rows q8;
};

/// What a quantised row stands for.
std::vector<double> values_of(const Q8Rows& x, std::size_t row) {
  std::vector<double> values(x.k);
  for (std::size_t k = 0; k < x.k; ++k) values[k] = double{x.plane(row).scale[k / 32]} * x.plane(row).q[k];
  for (std::size_t f = 0; f < x.fine_groups(); ++f)
    for (std::size_t i = 0; i < 32; ++i)
      values[x.fine_index(row)[f] * 32 + i] += double{x.fine(row).scale[f]} * x.fine(row).q[32 * f + i];
  return values;
}

std::vector<float> random_input(std::size_t n, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (auto& v : x) v = normal(random);
  for (std::size_t i = 0; i < n; i += 97) x[i] *= 40;  // outlier channels
  return x;
}

std::vector<float> multiply(const KernelTable& table, const TileMatrix& w, const std::vector<float>& x,
                            std::size_t rows) {
  std::vector<std::byte> scratch(matmul_scratch_bytes(w.cols) + 64);
  auto* aligned = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64) % 64;
  const std::size_t stride = w.groups() * kTileRows;
  std::vector<float> y(rows * stride);
  const Quantised q(table, x, rows, w.cols);
  table.matmul_q8(w, 0, w.groups(), q.q8, y.data(), stride, aligned);
  return y;
}

class ProductTest : public testing::TestWithParam<DType> {};

TEST_P(ProductTest, PackingCanBeUndone) {
  std::mt19937 random(1);
  const Packed p(GetParam(), 19, 512, random);
  std::vector<float> expected(512), actual(512);
  for (std::size_t r = 0; r < 19; ++r) {
    dequantize_row(GetParam(), p.raw.data() + r * row_bytes(GetParam(), 512), 512, expected.data());
    dequantize_packed_row(p.matrix, r, actual.data());
    ASSERT_EQ(expected, actual) << "row " << r;
  }
}

TEST_P(ProductTest, ScalarAgreesWithTheDequantisedReference) {
  std::mt19937 random(2);
  const KernelTable& scalar = *available_kernels().front();
  const std::size_t rows = 35, cols = 768;
  const Packed p(GetParam(), rows, cols, random);
  const std::vector<float> x = random_input(cols, random);
  const Quantised q(scalar, x, 1, cols);
  const std::vector<double> input = values_of(q.q8, 0);
  const std::vector<float> y = multiply(scalar, p.matrix, x, 1);
  std::vector<float> w(cols);
  for (std::size_t r = 0; r < rows; ++r) {
    dequantize_packed_row(p.matrix, r, w.data());
    double sum = 0, magnitude = 0;
    for (std::size_t k = 0; k < cols; ++k) {
      const double product = double{w[k]} * input[k];
      sum += product;
      magnitude += std::abs(product);
    }
    // The same numbers in exact arithmetic: what is left is f32 rounding of partial sums (minimums cancel against
    // products).
    EXPECT_NEAR(y[r], sum, 1e-5 * magnitude) << "row " << r;
  }
}

TEST_P(ProductTest, EveryPathGivesTheSameBits) {
  std::mt19937 random(3);
  const KernelTable& scalar = *available_kernels().front();
  for (const std::size_t cols : {std::size_t{256}, std::size_t{1024}}) {
    const Packed p(GetParam(), 48, cols, random);
    const std::size_t most = 40;
    const std::vector<float> x = random_input(most * cols, random);
    std::vector<float> expected;
    for (std::size_t r = 0; r < most; ++r) {
      const auto y = multiply(
          scalar, p.matrix,
          {x.begin() + static_cast<std::ptrdiff_t>(r * cols), x.begin() + static_cast<std::ptrdiff_t>((r + 1) * cols)},
          1);
      expected.insert(expected.end(), y.begin(), y.end());
    }
    for (const KernelTable* table : available_kernels())
      for (std::size_t rows : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 9u, 13u, 16u, 31u, 40u}) {
        const auto y =
            multiply(*table, p.matrix, {x.begin(), x.begin() + static_cast<std::ptrdiff_t>(rows * cols)}, rows);
        ASSERT_EQ(0, std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)))
            << table->name << ", " << rows << " rows";
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ProductTest, testing::ValuesIn(kQuantised),
                         [](const auto& info) { return std::string(dtype_info(info.param).name); });

TEST(FloatProductTest, AgreesWithReferenceAndDoesNotDependOnRows) {
  std::mt19937 random(4);
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const std::size_t cols = 77, most = 29;
    const Packed p(type, 35, cols, random);
    const std::vector<float> x = random_input(most * cols, random);
    std::vector<float> w(cols);
    std::vector<float> expected;
    for (const KernelTable* table : available_kernels())
      for (std::size_t rows : {1u, 2u, 5u, 12u, 13u, 29u}) {
        std::vector<float> y(rows * 48);
        table->matmul_float(p.matrix, 0, 3, x.data(), rows, cols, y.data(), 48, nullptr);
        if (expected.empty()) {
          expected.resize(most * 48);
          table->matmul_float(p.matrix, 0, 3, x.data(), most, cols, expected.data(), 48, nullptr);
          for (std::size_t n = 0; n < 35; ++n) {
            dequantize_packed_row(p.matrix, n, w.data());
            double sum = 0, magnitude = 0;
            for (std::size_t k = 0; k < cols; ++k) {
              sum += double{w[k]} * x[k];
              magnitude += std::abs(double{w[k]} * x[k]);
            }
            EXPECT_NEAR(y[n], sum, 1e-5 * magnitude) << dtype_info(type).name;
          }
        }
        ASSERT_EQ(0, std::memcmp(y.data(), expected.data(), y.size() * sizeof(float))) << table->name << " " << rows;
      }
    expected.clear();
  }
}

TEST(QuantizeTest, EveryInstructionSetGivesTheSameBytes) {
  std::mt19937 random(5);
  std::vector<float> x = random_input(320, random);
  std::fill(x.begin() + 64, x.begin() + 96, 0.0f);
  const std::size_t kUsed = Q8Plane::bytes_for(320) + Q8Plane::bytes_for(32) + 2 * 4;  // 1 of 10 groups is fine
  const Quantised expected(*available_kernels().front(), x, 1, 320);
  EXPECT_EQ(expected.q8.plane(0).scale[2], 0.0f);
  for (const KernelTable* table : available_kernels()) {
    const Quantised actual(*table, x, 1, 320);
    EXPECT_EQ(0, std::memcmp(expected.q8.data, actual.q8.data, kUsed)) << table->name;
  }
}

TEST(QuantizeTest, GroupsWithOutliersAreFine) {
  std::mt19937 random(6);
  std::vector<float> x = random_input(512, random);
  const std::vector<std::size_t> outliers{70, 300};
  for (const std::size_t i : outliers) x[i] = 1000;
  const Quantised q(*available_kernels().front(), x, 1, 512);
  const std::vector<double> values = values_of(q.q8, 0);
  ASSERT_EQ(q.q8.fine_groups(), 2u);
  for (const std::size_t i : outliers)
    for (std::size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j)
      EXPECT_NEAR(values[j], x[j], 1000.0 / 127 / 254 / 2 * 1.01);
}

}  // namespace
}  // namespace snug
