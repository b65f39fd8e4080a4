/// Single int8 rows: the error of their values, and the products of every instruction set against double precision.

#include "kernels/int8_row.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/kernels.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

constexpr std::size_t kSizes[] = {32, 64, 96, 128, 160, 576, 896};

using testing_support::random_values;

std::vector<double> values_of(const std::vector<std::byte>& record, std::size_t n) {
  std::vector<double> values(n);
  const Int8Row row = Int8Row::at(record.data(), n);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t scale;
    std::memcpy(&scale, row.scales + i / 32 * 2, 2);
    values[i] = row.q[i] * static_cast<double>(std::bit_cast<float>(std::uint32_t{scale} << 16));
  }
  return values;
}

std::vector<std::byte> record_of(const std::vector<float>& x) {
  std::vector<std::byte> record(Int8Row::bytes_for(x.size()));
  quantize_int8_row(x.data(), x.size(), record.data());
  return record;
}

TEST(Int8Row, ValuesAreWithinHalfAStep) {
  for (const std::size_t n : kSizes) {
    std::vector<float> x = random_values(n, 1);
    std::fill_n(x.begin(), 16, 0.0f);
    const std::vector<double> values = values_of(record_of(x), n);
    for (std::size_t i = 0; i < n; ++i) {
      float most = 0;
      for (std::size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) most = std::max(most, std::abs(x[j]));
      EXPECT_NEAR(values[i], x[i], most / 127 * 0.505) << i;  // scales are up to 1/128 larger than exact ones
    }
  }
}

TEST(Int8Row, ExtremeValues) {
  std::vector<float> x(64, 0.0f);
  x[0] = std::numeric_limits<float>::infinity();
  x[1] = std::nanf("");
  x[32] = std::numeric_limits<float>::max();
  x[33] = std::numeric_limits<float>::denorm_min();
  for (const double v : values_of(record_of(x), 64)) EXPECT_TRUE(std::isfinite(v));
}

class Int8RowProducts : public testing::TestWithParam<const KernelTable*> {};

TEST_P(Int8RowProducts, MatchDoublePrecision) {
  const KernelTable& k = *GetParam();
  for (const std::size_t n : kSizes) {
    const std::vector<float> x = random_values(n, 2);
    const std::vector<std::byte> record = record_of(random_values(n, 3));
    const std::vector<double> y = values_of(record, n);
    double want = 0, size = 0;
    for (std::size_t i = 0; i < n; ++i) {
      want += x[i] * y[i];
      size += std::abs(x[i] * y[i]);
    }
    EXPECT_NEAR(k.dot_int8(x.data(), Int8Row::at(record.data(), n), n), want, 1e-6 * size) << n;
    std::vector<float> sum = x;
    k.axpy_int8(sum.data() + 32, -0.7f, Int8Row::at(record.data(), n).from(32), n - 32);
    for (std::size_t i = 0; i < n; ++i)
      EXPECT_NEAR(sum[i], i < 32 ? x[i] : x[i] + -0.7f * y[i], 1e-5) << i << " of " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, Int8RowProducts, testing::ValuesIn(available_kernels()),
                         [](const auto& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace snug
