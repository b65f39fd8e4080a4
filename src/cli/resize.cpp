// resize: another budget for a process that runs.

#include "base/error.hpp"
#include "base/memory_info.hpp"
#include "cli/commands.hpp"
#include "cli/control.hpp"

namespace snug {

void add_resize(CLI::App& app) {
  struct Options {
    long pid = 0;
    std::string size;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("resize", "give a running snug another memory budget");
  command->add_option("PID", options->pid, "process id of the running snug")->required();
  command->add_option("SIZE", options->size, "the new budget, e.g. 512MiB or 25%")->required();
  command->footer("Examples:\n  snug resize $(pidof snug) 512MiB");
  command->callback([options] {
    const Bytes budget = parse_size(options->size, memory_info().limit);
    const std::string answer = send_control(options->pid, fmt::format("resize {}", budget));
    if (answer.starts_with("error: ")) fail("{}", answer.substr(7));
    fmt::print("{}\n", answer);
  });
}

}  // namespace snug
