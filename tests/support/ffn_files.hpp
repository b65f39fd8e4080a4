#pragma once
/// A file of FFN neurons in which every bundle says which one it is.

#include "format/ffn_file.hpp"
#include "support/temporary_folder.hpp"

namespace snug::testing_support {

inline constexpr std::uint64_t kTestModel = 77;  // its fingerprint

inline FfnShape test_ffn_shape() {
  return {.width = 64, .rank = 32, .gated = true, .neurons = {300, 0, 200}};
}

inline std::byte test_bundle_byte(std::size_t layer, std::size_t neuron, std::size_t i) {
  return static_cast<std::byte>(layer * 31 + neuron * 7 + i);
}

inline std::string write_test_ffn(const TemporaryFolder& folder) {
  const FfnShape shape = test_ffn_shape();
  std::vector<std::vector<std::byte>> predictors;
  for (const std::uint32_t n : shape.neurons) {
    auto& p = predictors.emplace_back(FfnPredictor::bytes_for(shape, n), std::byte{1});
    if (n == 0) continue;
    auto* number = reinterpret_cast<std::uint32_t*>(p.data());
    for (std::uint32_t i = 0; i < n; ++i) number[i] = n - 1 - i;
  }
  write_ffn_file(folder.file("test.ffn"), kTestModel, shape, predictors, [&](std::size_t layer) {
    std::vector<std::byte> all;
    for (std::size_t n = 0; n < shape.neurons[layer]; ++n)
      for (std::size_t i = 0; i < shape.bundle_bytes(); ++i) all.push_back(test_bundle_byte(layer, n, i));
    return all;
  });
  return folder.file("test.ffn");
}

}  // namespace snug::testing_support
