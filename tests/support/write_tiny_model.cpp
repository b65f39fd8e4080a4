// Writes the tests' tiny random model: write_tiny_model FILE [LAYERS [CONTEXT]]. For smoke runs without a download.

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "support/tiny_model.hpp"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) return std::fprintf(stderr, "usage: %s FILE [LAYERS [CONTEXT]]\n", argv[0]), 1;
  const auto number = [&](int i, std::uint32_t otherwise) {
    return argc > i ? static_cast<std::uint32_t>(std::strtoul(argv[i], nullptr, 10)) : otherwise;
  };
  const std::string bytes = snug::testing_support::tiny_model(
      {.vocab = 512, .width = 256, .layers = number(2, 2), .ffn = 512, .context = number(3, 2048)});
  std::ofstream out(argv[1], std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  return out ? 0 : 1;
}
