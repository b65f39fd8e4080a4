#pragma once
/// --config FILE: the options of a command in a file (TOML, of which INI is a part).

#include <CLI/CLI.hpp>

namespace snug {

/// Adds the option. Names are those of the options without dashes; the command line comes before SNUG_* variables, and
/// these before the file. Sets the command's parse_complete_callback. REQUIRES: all other options are there; none of
/// those that a file may have is required.
void add_config_option(CLI::App& command);

}  // namespace snug
