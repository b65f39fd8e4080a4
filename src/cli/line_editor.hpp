#pragma once
/// Interactive input for chat: line editing and history on a terminal, plain lines otherwise.

#include <memory>
#include <optional>
#include <string>

namespace snug {

class LineEditor {
public:
  /// `history_file` is read now and written (mode 0600) after each input; "" keeps no history file. A history that
  /// can't be read or written is no error.
  explicit LineEditor(std::string history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  /// One input without its line break; nothing at the end of input (Ctrl-D). A trailing backslash continues on the next
  /// line; """ opens a text of several lines that ends with """. Ctrl-C drops what was typed and asks again; twice in a
  /// row on an empty line it ends the input. The process's SIGINT handler is put back before returning.
  std::optional<std::string> read(const std::string& prompt);

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace snug
