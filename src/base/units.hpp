#pragma once
/// Sizes in bytes: arithmetic that cannot overflow silently, parsing and printing.

#include <cstdint>
#include <string>
#include <string_view>

namespace snug {

using Bytes = std::uint64_t;

inline constexpr Bytes kKiB = 1024;
inline constexpr Bytes kMiB = 1024 * kKiB;
inline constexpr Bytes kGiB = 1024 * kMiB;

/// a * b and a + b; throw Error("... too large") when the result does not fit in 64 bits.
Bytes checked_mul(Bytes a, Bytes b);
Bytes checked_add(Bytes a, Bytes b);

/// `value` rounded up to a multiple of `step` (> 0).
constexpr Bytes round_up(Bytes value, Bytes step) {
  return (value + step - 1) / step * step;
}

/// Parses SIZE: `512MiB`, `2G`, `1.5GB`, `50%`. K/M/G/T and KiB/MiB/GiB/TiB are powers of 1024, KB/MB/GB/TB of 1000, a
/// bare number is bytes, `%` is of `whole`. Throws UsageError on anything else, negative or overflowing.
Bytes parse_size(std::string_view text, Bytes whole = 0);

/// "118MiB", "1.5GiB", "640B": at most one decimal, powers of 1024.
std::string format_bytes(Bytes bytes);

}  // namespace snug
