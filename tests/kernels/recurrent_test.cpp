/// Gated delta rule steps of every instruction set against double precision.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/kernels.hpp"
#include "support/random_values.hpp"

namespace snug {
namespace {

using testing_support::random_values;

class Recurrent : public testing::TestWithParam<const KernelTable*> {};

TEST_P(Recurrent, DeltaRule) {
  constexpr std::size_t kKeys = 48, kValues = 32;
  constexpr float kDecay = 0.9f, kBeta = 0.7f;
  const auto q = random_values(kKeys, 1), k = random_values(kKeys, 2), v = random_values(kValues, 3);
  const auto before = random_values(kKeys * kValues, 4);
  std::vector<float> after(before.size()), out(kValues);
  const DeltaStep step{q.data(), k.data(), v.data(), kDecay, kBeta, kKeys, kValues};
  GetParam()->delta_rule(before.data(), after.data(), step, out.data());
  for (std::size_t j = 0; j < kValues; ++j) {
    const auto at = [&](std::size_t i) { return (j / 16 * kKeys + i) * 16 + j % 16; };
    double known = 0, want = 0;
    for (std::size_t i = 0; i < kKeys; ++i) known += double{before[at(i)]} * kDecay * k[i];
    for (std::size_t i = 0; i < kKeys; ++i) {
      const double s = double{before[at(i)]} * kDecay + k[i] * (v[j] - known) * kBeta;
      EXPECT_NEAR(after[at(i)], s, 1e-4);
      want += s * q[i];
    }
    EXPECT_NEAR(out[j], want, 1e-3);
  }
  auto in_place = before;
  std::vector<float> again(kValues);
  GetParam()->delta_rule(in_place.data(), in_place.data(), step, again.data());
  EXPECT_EQ(in_place, after);
  EXPECT_EQ(again, out);
}

TEST_P(Recurrent, CausalConvolution) {
  constexpr std::size_t kTaps = 4, kChannels = 48;
  const auto x = random_values(kTaps * kChannels, 5), w = random_values(kTaps * kChannels, 6);
  const float* inputs[kTaps];
  for (std::size_t t = 0; t < kTaps; ++t) inputs[t] = x.data() + t * kChannels;
  std::vector<float> out(kChannels);
  GetParam()->causal_conv(inputs, w.data(), kTaps, kChannels, out.data());
  for (std::size_t c = 0; c < kChannels; ++c) {
    double sum = 0;
    for (std::size_t t = 0; t < kTaps; ++t) sum += double{x[t * kChannels + c]} * w[t * kChannels + c];
    EXPECT_NEAR(out[c], sum / (1 + std::exp(-sum)), 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Recurrent, testing::ValuesIn(available_kernels()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace snug
