#pragma once
/// Chat templates (Jinja2, as published in model files under `tokenizer.chat_template`), rendered by minijinja.

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

struct ChatTemplateOptions {
  bool add_generation_prompt = true;
  int enable_thinking = -1;  ///< -1: not set, 0: off, 1: on (passed as `enable_thinking`)
};

class ChatTemplate {
public:
  /// Compiles `source`; throws FormatError with line and reason.
  ChatTemplate(std::string_view source, std::string_view bos_token, std::string_view eos_token);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  /// messages: [{"role": ..., "content": ..., "tool_calls": ...}, ...]; tools: array or null; extra: object merged into
  /// the template's variables, or null. Throws Error with the template's own message (raise_exception) or line.
  std::string render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools,
                     const ChatTemplateOptions& options, const nlohmann::ordered_json& extra) const;

  /// Source of a built-in template ("chatml", "llama-2", "llama-3", "gemma", ...) or "" when unknown.
  static std::string_view builtin(std::string_view name);
  static std::vector<std::string_view> builtin_names();

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace snug
