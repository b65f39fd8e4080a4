#include "cli/line_editor.hpp"

#include <histedit.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string_view>
#include <system_error>

namespace snug {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr const char* kContinuation = "... ";
constexpr int kHistoryEntries = 1000;

volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) {
  interrupted = 1;
}

/// While it lives, Ctrl-C interrupts the read instead of doing what the process set up.
class InterruptGuard {
public:
  InterruptGuard() {
    struct sigaction action{};
    action.sa_handler = on_interrupt;  // no SA_RESTART: the read must return
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &action, &previous_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &previous_, nullptr); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

private:
  struct sigaction previous_{};
};

bool on_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term != nullptr && std::string_view(term) != "dumb";
}

/// libedit reads characters as the locale says; "C" would break everything beyond ASCII.
void use_utf8_locale() {
  const char* name = std::setlocale(LC_CTYPE, "");
  if (name == nullptr || std::string_view(name) == "C" || std::string_view(name) == "POSIX") {
    std::setlocale(LC_CTYPE, "C.UTF-8");
  }
}

std::string without_line_break(std::string line) {
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return line;
}

}  // namespace

struct LineEditor::Impl {
  std::string history_file;
  std::string prompt;
  std::unique_ptr<EditLine, decltype(&el_end)> editor{nullptr, el_end};
  std::unique_ptr<History, decltype(&history_end)> entries{nullptr, history_end};
  bool interrupted_before = false;

  enum class Outcome { kLine, kEnd, kInterrupt };

  Outcome read_line(const std::string& shown, std::string& line);
  Outcome read_input(const std::string& shown, std::string& text);
  void remember(const std::string& text);
};

namespace {

char* current_prompt(EditLine* editor) {
  void* data = nullptr;
  el_get(editor, EL_CLIENTDATA, &data);
  return static_cast<std::string*>(data)->data();
}

}  // namespace

LineEditor::LineEditor(std::string history_file) : impl_(std::make_unique<Impl>()) {
  impl_->history_file = std::move(history_file);
  if (!on_terminal()) return;
  use_utf8_locale();
  impl_->editor.reset(el_init("snug", stdin, stdout, stderr));
  impl_->entries.reset(history_init());
  if (impl_->editor == nullptr || impl_->entries == nullptr) {
    impl_->editor.reset();
    return;
  }
  EditLine* editor = impl_->editor.get();
  HistEvent event{};
  history(impl_->entries.get(), &event, H_SETSIZE, kHistoryEntries);
  history(impl_->entries.get(), &event, H_SETUNIQUE, 1);
  if (!impl_->history_file.empty()) history(impl_->entries.get(), &event, H_LOAD, impl_->history_file.c_str());
  el_set(editor, EL_CLIENTDATA, static_cast<void*>(&impl_->prompt));
  el_set(editor, EL_PROMPT, current_prompt);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_SIGNAL, 0);
  el_set(editor, EL_HIST, history, impl_->entries.get());
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(editor, EL_BIND, "^W", "ed-delete-prev-word", nullptr);
  el_source(editor, nullptr);
}

LineEditor::~LineEditor() = default;

LineEditor::Impl::Outcome LineEditor::Impl::read_line(const std::string& shown, std::string& line) {
  if (editor == nullptr) {
    if (isatty(STDIN_FILENO)) std::cout << shown << std::flush;
    if (!std::getline(std::cin, line)) return Outcome::kEnd;
    line = without_line_break(std::move(line));
    return Outcome::kLine;
  }
  prompt = shown;
  int length = 0;
  const InterruptGuard guard;
  const char* typed = el_gets(editor.get(), &length);
  if (interrupted != 0) {
    std::fputs("^C\n", stdout);
    std::fflush(stdout);
    el_reset(editor.get());
    line = typed == nullptr ? std::string() : std::string(typed, static_cast<std::size_t>(length));
    return Outcome::kInterrupt;
  }
  if (typed == nullptr || length <= 0) return Outcome::kEnd;
  line = without_line_break(std::string(typed, static_cast<std::size_t>(length)));
  return Outcome::kLine;
}

/// Reads lines until the input is complete.
LineEditor::Impl::Outcome LineEditor::Impl::read_input(const std::string& shown, std::string& text) {
  Outcome outcome = read_line(shown, text);
  if (outcome != Outcome::kLine) return outcome;
  const bool quoted = text.starts_with(kQuotes);
  if (quoted) text.erase(0, kQuotes.size());
  std::string line;
  for (;;) {
    if (quoted) {
      if (text.ends_with(kQuotes)) {
        text.resize(text.size() - kQuotes.size());
        return Outcome::kLine;
      }
      text += '\n';
    } else {
      if (!text.ends_with('\\')) return Outcome::kLine;
      text.back() = '\n';
    }
    outcome = read_line(kContinuation, line);
    if (outcome == Outcome::kEnd) return Outcome::kLine;
    if (outcome == Outcome::kInterrupt) return outcome;
    text += line;
  }
}

void LineEditor::Impl::remember(const std::string& text) {
  if (entries == nullptr || text.find_first_not_of(" \t\n") == std::string::npos) return;
  HistEvent event{};
  history(entries.get(), &event, H_ENTER, text.c_str());
  if (history_file.empty()) return;
  std::error_code ignored;
  const std::filesystem::path folder = std::filesystem::path(history_file).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  const mode_t previous = umask(0077);
  history(entries.get(), &event, H_SAVE, history_file.c_str());
  umask(previous);
}

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  for (;;) {
    std::string text;
    switch (impl_->read_input(prompt, text)) {
      case Impl::Outcome::kEnd:
        if (impl_->editor != nullptr) std::fputs("\n", stdout);
        return std::nullopt;
      case Impl::Outcome::kLine:
        impl_->interrupted_before = false;
        impl_->remember(text);
        return text;
      case Impl::Outcome::kInterrupt:
        if (impl_->interrupted_before && text.empty()) return std::nullopt;
        impl_->interrupted_before = true;
        std::fputs("(Ctrl-C again or Ctrl-D ends)\n", stdout);
    }
  }
}

}  // namespace snug
