// Small dense products and widening, on every instruction set, at sizes that leave every kind of rest.

#include "kernels/kv_lines.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernels.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

using testing_support::random_values;

TEST(KvLinesTest, ProductsAreAdded) {
  for (const KernelTable* k : available_kernels())
    for (const std::size_t m : {1u, 3u, 4u, 7u, 64u})
      for (const std::size_t n : {1u, 15u, 16u, 31u, 32u, 33u, 64u, 72u})
        for (const std::size_t depth : {1u, 5u, 64u}) {
          const std::vector<float> a = random_values(m * depth, 1), b = random_values(depth * n, 2);
          std::vector<float> out = random_values(m * n, 3);
          std::vector<double> expected(out.begin(), out.end());
          for (std::size_t r = 0; r < m; ++r)
            for (std::size_t j = 0; j < depth; ++j)
              for (std::size_t c = 0; c < n; ++c) expected[r * n + c] += double{a[r * depth + j]} * b[j * n + c];
          k->add_product(a.data(), b.data(), m, depth, n, out.data());
          for (std::size_t i = 0; i < out.size(); ++i)
            ASSERT_NEAR(out[i], expected[i], 1e-4) << k->name << " " << m << " " << depth << " " << n;
        }
}

TEST(KvLinesTest, WhatIsRoundedWidens) {
  for (const KernelTable* k : available_kernels()) {
    const std::vector<float> x = random_values(96, 1);
    std::vector<bf16_t> rounded(x.size());
    std::vector<float> back(x.size());
    k->to_bf16(x.data(), x.size(), rounded.data());
    k->from_bf16(rounded.data(), x.size(), back.data());
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(back[i], x[i], std::abs(x[i]) / 256) << k->name;
  }
}

}  // namespace
}  // namespace snug
