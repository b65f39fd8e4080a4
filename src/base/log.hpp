#pragma once
/// Diagnostics for whoever looks into a run: silent unless SNUG_LOG=debug|info|warn|error asks for them (stderr).
/// What a user must know is not logged but printed by the command.

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace snug {

enum class LogLevel { debug, info, warn, error };

bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view line);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace snug
