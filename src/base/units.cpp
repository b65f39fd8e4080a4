#include "base/units.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.hpp"

namespace snug {

Bytes checked_mul(Bytes a, Bytes b) {
  Bytes result = 0;
  if (__builtin_mul_overflow(a, b, &result)) fail<Error>("size too large: {} x {}", a, b);
  return result;
}

Bytes checked_add(Bytes a, Bytes b) {
  Bytes result = 0;
  if (__builtin_add_overflow(a, b, &result)) fail<Error>("size too large: {} + {}", a, b);
  return result;
}

Bytes parse_size(std::string_view text, Bytes whole) {
  struct Unit {
    std::string_view suffix;
    double factor;
  };
  static constexpr double k = 1024, d = 1000;
  static constexpr std::array<Unit, 14> kUnits{{{"", 1},
                                                {"B", 1},
                                                {"K", k},
                                                {"M", k * k},
                                                {"G", k * k * k},
                                                {"T", k * k * k * k},
                                                {"KiB", k},
                                                {"MiB", k * k},
                                                {"GiB", k * k * k},
                                                {"TiB", k * k * k * k},
                                                {"KB", d},
                                                {"MB", d * d},
                                                {"GB", d * d * d},
                                                {"TB", d * d * d * d}}};
  const auto bad = [&]() { fail<UsageError>("'{}' is not a size: write for example 512MiB, 2G or 50%", text); };
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || number < 0) bad();
  const std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  double factor = -1;
  for (const Unit& unit : kUnits)
    if (unit.suffix == suffix) factor = unit.factor;
  if (suffix == "%" && whole > 0) factor = static_cast<double>(whole) / 100;
  if (factor < 0) bad();
  const double bytes = number * factor;
  if (bytes >= static_cast<double>(std::numeric_limits<Bytes>::max())) bad();
  return static_cast<Bytes>(bytes);
}

std::string format_bytes(Bytes bytes) {
  static constexpr std::array<std::string_view, 5> kNames{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0 || value >= 100 || value == std::floor(value)) return fmt::format("{:.0f}{}", value, kNames[unit]);
  return fmt::format("{:.1f}{}", value, kNames[unit]);
}

}  // namespace snug
