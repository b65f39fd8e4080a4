// The interactive part of `run`: questions, answers and commands that begin with a slash.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/memory_info.hpp"
#include "cli/line_editor.hpp"
#include "cli/run_options.hpp"

namespace snug {

namespace {

constexpr std::string_view kHelp =
    "/help           this\n"
    "/stats          speed and memory so far\n"
    "/memory SIZE    go on within another budget\n"
    "/clear          forget the conversation\n"
    "/save NAME      write the conversation to NAME (JSON), and what is in memory of it to NAME.kv\n"
    "/load NAME      go on with a saved conversation\n"
    "/exit           leave (or Ctrl-D)\n"
    "\"\"\" begins and ends a text of several lines, a \\ at the end of a line continues it; Ctrl-C stops an answer.\n";

std::string history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state && *state) return std::string(state) + "/snug/history";
  return home ? std::string(home) + "/.local/state/snug/history" : "";
}

/// Beside a conversation: its tokens' keys and values, so that going on needs no prefill.
std::string kv_path(const std::string& name) {
  return name + ".kv";
}

void save(const Run& run, const std::string& name) {
  const std::string text =
      run.conversation->messages().dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  write_atomically(name, [&](const auto& append) { append(std::as_bytes(std::span(text))); });
  if (run.session->length() > 0) run.session->save(kv_path(name));
}

void load(Run& run, const std::string& name) {
  auto json = nlohmann::ordered_json::parse(read_text_file(name), nullptr, false);
  bool good = json.is_array();
  for (const auto& m : json)
    good = good && m.is_object() && m.contains("role") && m["role"].is_string() && m.contains("content") &&
           m["content"].is_string();
  if (!good) fail<FormatError>("{} is not a saved conversation", name);
  // Conversations written by hand, or moved without it, have none: they are read anew.
  std::error_code error;
  if (std::filesystem::exists(kv_path(name), error)) run.session->load(kv_path(name));
  run.conversation->set_messages(std::move(json));
}

/// Runs "/name argument"; false when it ends the chat.
bool command(Run& run, const RunOptions& options, const std::string& line) {
  const auto space = line.find(' ');
  const std::string name = line.substr(0, space), argument = space == std::string::npos ? "" : line.substr(space + 1);
  if (name == "/exit" || name == "/quit" || name == "/bye") return false;
  if (name == "/stats") {
    print_stats(run);
  } else if (name == "/memory" && !argument.empty()) {
    run.budget->set(parse_size(argument, memory_info().limit));
    print_stats(run);
  } else if (name == "/clear") {
    run.conversation->clear();
    if (!options.system.empty()) run.conversation->add("system", options.system);
  } else if ((name == "/save" || name == "/load") && !argument.empty()) {
    if (name == "/save")
      save(run, argument);
    else
      load(run, argument);
  } else {
    fmt::print("{}", kHelp);
  }
  return true;
}

/// Says so when pressure has changed the budget since it was `known`.
void tell_pressure(const Run& run, BudgetKeeper::Counts& known) {
  const BudgetKeeper::Counts now = run.budget->counts();
  const std::string budget = format_bytes(run.engine.ledger->report().limit);
  if (!isatty(STDERR_FILENO)) return;
  if (now.shrunk > known.shrunk)
    fmt::print(stderr, "memory is short: budget now {}\n", budget);
  else if (now.grown > known.grown)
    fmt::print(stderr, "memory is there again: budget now {}\n", budget);
  known = now;
}

void answer(Run& run, const RunOptions& options, const std::string& question) {
  run.conversation->add("user", question);
  run.session->prompt(run.conversation->prompt());
  const CancelOnInterrupt guard;
  GenerateOptions generate = options.generate;
  generate.cancel = &CancelOnInterrupt::cancelled();
  const GenerateResult result = run.session->generate(generate, [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  run.conversation->add("assistant", result.text);
  fmt::print("\n");
  if (result.reason == StopReason::context_full)
    fmt::print(stderr, "note: the context of {} tokens is full: /clear begins anew\n", run.session->context());
}

}  // namespace

void chat(Run& run, const RunOptions& options) {
  LineEditor editor(history_path());
  fmt::print("{} ({} tokens of context). /help shows the commands.\n", run.engine.name, run.session->context());
  BudgetKeeper::Counts known;
  while (const auto line = editor.read("> ")) {
    if (line->find_first_not_of(" \t\n") == std::string::npos) continue;
    try {
      if (line->front() == '/' && line->find('\n') == std::string::npos) {
        if (!command(run, options, *line)) return;
      } else {
        answer(run, options, *line);
      }
    } catch (const Error& e) {
      fmt::print(stderr, "error: {}\n", e.what());
    }
    tell_pressure(run, known);
  }
}

}  // namespace snug
