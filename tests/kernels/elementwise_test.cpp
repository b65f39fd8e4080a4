/// Every elementwise kernel of every instruction set against double precision.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"

namespace snug {
namespace {

constexpr std::size_t kSizes[] = {1, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 300};
constexpr float kInf = std::numeric_limits<float>::infinity();
/// Written after the last value: a kernel that stores too much is found out.
constexpr float kGuard = 12345.0f;

std::vector<float> random_values(std::size_t n, float spread, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> x(n + 1, kGuard);
  for (std::size_t i = 0; i < n; ++i) x[i] = normal(generator);
  return x;
}

using Reference = std::function<double(double, double)>;

/// |got - want| within `relative` of want, plus `absolute`.
void expect_close(const std::vector<float>& got, std::size_t n, const std::function<double(std::size_t)>& want,
                  double relative, double absolute) {
  for (std::size_t i = 0; i < n; ++i) {
    const double w = want(i);
    ASSERT_NEAR(got[i], w, relative * std::abs(w) + absolute) << "i " << i << " of " << n;
  }
  EXPECT_EQ(got[n], kGuard);
}

class Elementwise : public testing::TestWithParam<const KernelTable*> {
protected:
  const KernelTable& k() const { return *GetParam(); }

  void check(const Reference& want, const std::function<void(float*, const float*, std::size_t)>& run, float spread,
             double relative, double absolute) {
    for (const std::size_t n : kSizes) {
      auto x = random_values(n, spread, 1);
      const auto y = random_values(n, 1.0f, 2);
      const auto before = x;
      run(x.data(), y.data(), n);
      expect_close(x, n, [&](std::size_t i) { return want(before[i], y[i]); }, relative, absolute);
    }
  }
};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST_P(Elementwise, SimpleArithmetic) {
  // One rounding (axpy may round twice).
  check([](double a, double b) { return a + b; }, [&](float* x, const float* y, std::size_t n) { k().add(x, y, n); }, 2,
        6e-8, 0);
  check([](double a, double b) { return a * b; },
        [&](float* x, const float* y, std::size_t n) { k().multiply(x, y, n); }, 2, 6e-8, 0);
  check([](double a, double) { return a * 0.3f; },
        [&](float* x, const float*, std::size_t n) { k().scale(x, 0.3f, n); }, 2, 6e-8, 0);
  check([](double a, double b) { return a + 0.7f * b; },
        [&](float* x, const float* y, std::size_t n) { k().axpy(x, 0.7f, y, n); }, 2, 1e-7, 3e-7);
}

TEST_P(Elementwise, Activations) {
  // exp within 2 ulp (2.4e-7), then a few roundings.
  constexpr double kRelative = 1e-6;
  for (const float spread : {0.01f, 1.0f, 20.0f}) {
    check([](double a, double) { return sigmoid(a); },
          [&](float* x, const float*, std::size_t n) { k().sigmoid(x, n); }, spread, kRelative, 1e-38);
    check([](double a, double) { return a * sigmoid(a); },
          [&](float* x, const float*, std::size_t n) { k().silu(x, n); }, spread, kRelative, 1e-36);
    check([](double a, double b) { return a * sigmoid(a) * b; },
          [&](float* x, const float* y, std::size_t n) { k().silu_mul(x, y, n, x); }, spread, kRelative, 1e-36);
    // The argument of gelu's exponential grows with the cube, and its rounding error with it.
    check([](double a,
             double b) { return 0.5 * a * (1 + std::tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))) * b; },
          [&](float* x, const float* y, std::size_t n) { k().gelu_mul(x, y, n, x); }, spread, 1e-5, 2e-6);
    check([](double a, double) { return 30 * std::tanh(a / 30); },
          [&](float* x, const float*, std::size_t n) { k().softcap(x, 30.0f, n); }, spread, kRelative, 0);
    check(
        [](double a, double b) {
          const double g = std::min(a, 7.0), u = std::min(std::max(b, -7.0), 7.0);
          return g * sigmoid(1.702f * g) * (u + 1);
        },
        [&](float* x, const float* y, std::size_t n) { k().swiglu_oai(x, y, 1.702f, 7.0f, n, x); }, spread, 1e-5, 1e-6);
  }
}

TEST_P(Elementwise, ExtremeArguments) {
  std::vector<float> x = {-kInf, -1e30f, -200.0f, -88.0f, 0.0f, 88.0f, 200.0f, 1e30f, kInf};
  k().sigmoid(x.data(), x.size());
  EXPECT_EQ(x[0], 0.0f);
  EXPECT_EQ(x[1], 0.0f);
  EXPECT_EQ(x[2], 0.0f);
  EXPECT_EQ(x[4], 0.5f);
  EXPECT_EQ(x[5], 1.0f);
  EXPECT_EQ(x[8], 1.0f);
  std::vector<float> y = {-kInf, -1e30f, 0.0f, 1e30f, kInf, std::nanf("")};
  k().softcap(y.data(), 50.0f, y.size());
  EXPECT_EQ(y[0], -50.0f);
  EXPECT_EQ(y[1], -50.0f);
  EXPECT_EQ(y[2], 0.0f);
  EXPECT_EQ(y[3], 50.0f);
  EXPECT_EQ(y[4], 50.0f);
  EXPECT_TRUE(std::isnan(y[5]));
}

TEST_P(Elementwise, Reductions) {
  for (const std::size_t n : kSizes) {
    const auto x = random_values(n, 3.0f, 5), y = random_values(n, 1.0f, 6);
    double want = 0, size = 0, top = -1e30, sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      want += double{x[i]} * y[i];
      size += std::abs(double{x[i]} * y[i]);
      top = std::max(top, double{x[i]});
    }
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(x[i] - top);
    // Each lane adds n / 64 terms.
    EXPECT_NEAR(k().dot(x.data(), y.data(), n), want, 1e-6 * size);
    EXPECT_EQ(k().max(x.data(), n), static_cast<float>(top));
    EXPECT_NEAR(k().log_sum_exp(x.data(), n), top + std::log(sum), 2e-6);
  }
  EXPECT_EQ(k().max(nullptr, 0), -kInf);
  EXPECT_EQ(k().log_sum_exp(nullptr, 0), -kInf);
}

TEST_P(Elementwise, ReductionsDoNotDependOnAlignment) {
  auto x = random_values(300, 3.0f, 7);
  std::vector<float> shifted(320);
  for (std::size_t offset = 0; offset < 16; ++offset) {
    std::memcpy(shifted.data() + offset, x.data(), 300 * sizeof(float));
    EXPECT_EQ(k().dot(x.data(), x.data(), 300), k().dot(shifted.data() + offset, shifted.data() + offset, 300));
    EXPECT_EQ(k().log_sum_exp(x.data(), 300), k().log_sum_exp(shifted.data() + offset, 300));
  }
}

TEST_P(Elementwise, RmsNorm) {
  for (const std::size_t n : kSizes) {
    const auto x = random_values(n, 3.0f, 8), weight = random_values(n, 1.0f, 9);
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
    const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    std::vector<float> out(n + 1, kGuard);
    k().rms_norm(x.data(), weight.data(), 1e-5f, n, out.data());
    expect_close(out, n, [&](std::size_t i) { return x[i] * factor * weight[i]; }, 1e-6, 0);
    auto in_place = x;
    k().rms_norm(in_place.data(), nullptr, 1e-5f, n, in_place.data());
    expect_close(in_place, n, [&](std::size_t i) { return x[i] * factor; }, 1e-6, 0);
  }
}

TEST_P(Elementwise, Softmax) {
  for (const std::size_t n : kSizes) {
    auto x = random_values(n, 5.0f, 10);
    if (n > 7) x[5] = -kInf;
    const auto before = x;
    double top = -1e30, sum = 0;
    for (std::size_t i = 0; i < n; ++i) top = std::max(top, double{before[i]});
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(before[i] - top);
    k().softmax(x.data(), n);
    // The difference to the maximum is rounded: relative error 6e-8 times its size, up to 30.
    expect_close(x, n, [&](std::size_t i) { return std::exp(before[i] - top) / sum; }, 3e-6, 0);
    if (n > 7) {
      EXPECT_EQ(x[5], 0.0f);
    }
  }
  std::vector<float> none(20, -kInf);
  k().softmax(none.data(), none.size());
  for (const float p : none) EXPECT_EQ(p, 0.0f);
}

TEST_P(Elementwise, Rope) {
  for (const std::size_t pairs : {1, 3, 8, 16, 17, 20, 32, 64}) {
    std::vector<float> c(pairs), s(pairs);
    for (std::size_t i = 0; i < pairs; ++i) {
      c[i] = std::cos(static_cast<float>(i) * 0.37f);
      s[i] = std::sin(static_cast<float>(i) * 0.37f);
    }
    for (const bool split_half : {false, true}) {
      auto x = random_values(2 * pairs, 1.0f, 11);
      const auto before = x;
      k().rope(x.data(), c.data(), s.data(), pairs, split_half);
      EXPECT_EQ(x[2 * pairs], kGuard);
      for (std::size_t i = 0; i < pairs; ++i) {
        const std::size_t p = split_half ? i : 2 * i, q = split_half ? i + pairs : 2 * i + 1;
        const double a = before[p], b = before[q];
        EXPECT_NEAR(x[p], a * c[i] - b * s[i], 5e-7);
        EXPECT_NEAR(x[q], a * s[i] + b * c[i], 5e-7);
      }
    }
  }
}

std::string table_name(const testing::TestParamInfo<const KernelTable*>& info) {
  return std::string(info.param->name);
}
INSTANTIATE_TEST_SUITE_P(Isa, Elementwise, testing::ValuesIn(available_kernels()), table_name);

}  // namespace
}  // namespace snug
