// Pages of low rank: every instruction set gives the product of the integers.

#include "kernels/kv_low_rank.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/kv_lines.hpp"
#include "support/bf16_value.hpp"

namespace snug {
namespace {

using testing_support::bf16_value;

TEST(KvLowRankTest, IsTheProductOfRowsAndLanes) {
  std::mt19937 random(7);
  const auto integer = [&] { return static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127); };
  const auto factor = [&] { return 0.001f + 0.0001f * static_cast<float>(random() % 100); };
  for (const std::size_t rank : {4u, 64u, 96u, 260u})
    for (const bool row_offsets : {false, true}) {
      const std::size_t rows = 16, lanes = 64;
      const KvLines lines{rows / 2, lanes / 16, 32, 32 * (lanes / 16)};
      std::vector<std::int8_t> a(rows * rank), b(lanes * rank);
      std::vector<float> row_scale(rows), lane_scale(lanes), offset(lanes);
      std::vector<std::int32_t> sums(rows);
      for (float& x : row_scale) x = factor();
      for (float& x : lane_scale) x = factor();
      for (float& x : offset) x = 10 * factor();
      KvLowRank p{rank, a.data(), row_scale.data(), nullptr, sums.data(), b.data(), lane_scale.data(), nullptr};
      (row_offsets ? p.row_offset : p.lane_offset) = offset.data();
      std::vector<double> expected(rows * lanes);
      for (std::int8_t& x : b) x = integer();
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t r = 0; r < rank; ++r) {
          a[i * rank + r] = i == 3 ? std::int8_t{-127} : integer();
          sums[i] += a[i * rank + r];
          for (std::size_t j = 0; j < lanes; ++j) expected[i * lanes + j] += a[i * rank + r] * b[p.lane_index(j, r)];
        }
      std::vector<bf16_t> tiles(rows * lanes);
      for (const KernelTable* k : available_kernels()) {
        k->multiply_low_rank_kv(p, lines, tiles.data());
        for (std::size_t i = 0; i < rows; ++i)
          for (std::size_t j = 0; j < lanes; ++j) {
            const double want = expected[i * lanes + j] * static_cast<double>(row_scale[i] * lane_scale[j]) +
                                static_cast<double>(offset[row_offsets ? i : j]);
            const std::size_t at = i / 2 * lines.pair_stride + j / 16 * lines.vector_stride + j % 16 * 2 + i % 2;
            ASSERT_NEAR(static_cast<double>(bf16_value(tiles[at])), want, 1e-6 + std::abs(want) / 250)
                << k->name << ", rank " << rank << ", row " << i << ", lane " << j;
          }
      }
    }
}

}  // namespace
}  // namespace snug
