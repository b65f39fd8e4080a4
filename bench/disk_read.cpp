// What the disk gives to reads like those of streaming: disk_read FILE [SECONDS [BLOCK [MEMORY]]]. Bytes per second on
// standard output.

#include <fmt/format.h>

#include <cstdlib>

#include "base/error.hpp"
#include "measure/disk_speed.hpp"
#include "plan/machine_profile.hpp"

int main(int argc, char** argv) {
  try {
    if (argc < 2) snug::fail("usage: disk_read FILE [SECONDS [BLOCK [MEMORY]]]");
    const double seconds = argc > 2 ? std::atof(argv[2]) : 2.0;
    const std::size_t block = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : snug::kStreamBlock;
    const std::size_t memory = argc > 4 ? std::strtoul(argv[4], nullptr, 10) : 0;
    fmt::print("{:.0f}\n", snug::measure_disk_read(argv[1], block, seconds, memory));
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
