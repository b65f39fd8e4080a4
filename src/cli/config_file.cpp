#include "cli/config_file.hpp"

#include "base/error.hpp"
#include "cli/engine.hpp"

namespace snug {

namespace {

void take(CLI::App& command, const CLI::ConfigItem& item, const std::string& path) {
  if (item.name == "++" || item.name == "--") return;  // the limits of a section
  if (!item.parents.empty())
    fail<UsageError>("{}: options stand by themselves, not in a section as \"{}\" does", path, item.fullname());
  CLI::Option* option = command.get_option_no_throw("--" + item.name);
  if (!option && item.name == "model") option = command.get_option_no_throw("MODEL");
  if (!option || item.name == "config" || item.name == "help")
    fail<UsageError>("{}: there is no option \"{}\" (see snug {} --help)", path, item.name, command.get_name());
  if (!option->empty()) return;
  if (option->get_expected_min() == 0)
    option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
  else
    option->add_result(item.inputs);
  option->run_callback();
}

}  // namespace

void add_config_option(CLI::App& command) {
  auto path = std::make_shared<std::string>();
  add_option(command, "--config", *path,
             "file with these options, NAME = VALUE (TOML); the command line and SNUG_* come before it");
  command.parse_complete_callback([path, &command] {
    if (path->empty()) return;
    std::vector<CLI::ConfigItem> items;
    try {
      items = CLI::ConfigTOML().from_file(*path);
    } catch (const CLI::FileError&) {
      fail<UsageError>("--config: {} cannot be read", *path);
    }
    for (const CLI::ConfigItem& item : items) take(command, item, *path);
  });
}

}  // namespace snug
