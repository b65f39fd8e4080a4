// Writes the tests' tiny random model: write_tiny_model FILE. For smoke runs without a download.

#include <cstdio>
#include <fstream>

#include "support/tiny_model.hpp"

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s FILE\n", argv[0]), 1;
  const std::string bytes =
      snug::testing_support::tiny_model({.vocab = 512, .width = 256, .ffn = 512, .context = 2048});
  std::ofstream out(argv[1], std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  return out ? 0 : 1;
}
