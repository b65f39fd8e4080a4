// Runs the fuzz target over a corpus and over seeded mutations of it: fuzz_replay FOLDER MUTATIONS_PER_FILE.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

Input read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Changed bytes, interesting 64-bit numbers, cuts. Metadata stands first, so most changes go there.
Input mutate(Input input, std::mt19937& random) {
  static constexpr std::uint64_t kNumbers[] = {0, 1, 8, 9, 0x7fffffff, 0xffffffff, ~0ull, 1ull << 63, 1ull << 40};
  const auto place = [&] {
    const std::size_t span = random() % 4 ? std::min<std::size_t>(input.size(), 8192) : input.size();
    return random() % span;
  };
  for (unsigned n = 1 + random() % 4; n > 0 && input.size() > 16; --n) {
    const std::size_t at = place();
    switch (random() % 4) {
      case 0:
        input[at] = static_cast<std::uint8_t>(random());
        break;
      case 1:
        input[at] = static_cast<std::uint8_t>(input[at] ^ (1u << (random() % 8)));
        break;
      case 2: {
        const std::uint64_t number = kNumbers[random() % std::size(kNumbers)];
        for (std::size_t i = 0; i < 8 && at + i < input.size(); ++i)
          input[at + i] = static_cast<std::uint8_t>(number >> (8 * i));
        break;
      }
      default:
        input.resize(at + 1);
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s FOLDER MUTATIONS_PER_FILE\n", argv[0]), 1;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::mt19937 random(1);
  std::size_t runs = 0;
  for (const auto& path : files) {
    const Input input = read(path);
    LLVMFuzzerTestOneInput(input.data(), input.size());
    for (int i = 0; i < std::atoi(argv[2]); ++i, ++runs) {
      const Input changed = mutate(input, random);
      LLVMFuzzerTestOneInput(changed.data(), changed.size());
    }
  }
  std::printf("%zu files, %zu mutations\n", files.size(), runs);
  return files.empty();
}
