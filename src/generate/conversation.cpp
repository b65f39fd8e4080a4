#include "generate/conversation.hpp"

#include "base/error.hpp"
#include "base/file.hpp"

namespace snug {

namespace {

std::string template_source(const Model& model, const std::string& name) {
  if (name.empty()) return std::string(model.file().get_string("tokenizer.chat_template").value_or(""));
  if (const std::string_view builtin = ChatTemplate::builtin(name); !builtin.empty()) return std::string(builtin);
  if (name.find('/') != std::string::npos || name.find('.') != std::string::npos) return read_text_file(name, kMiB);
  std::string known;
  for (const std::string_view other : ChatTemplate::builtin_names())
    known += fmt::format("{}{}", known.empty() ? "" : ", ", other);
  fail<UsageError>("template '{}' is unknown: give a file or one of {}", name, known);
}

}  // namespace

Conversation::Conversation(const Model& model, const std::string& template_name, ChatTemplateOptions options)
    : model_(model), options_(options) {
  const std::string source = template_source(model, template_name);
  const Tokenizer& t = model.tokenizer();
  if (!source.empty())
    template_.emplace(source, t.bos() >= 0 ? t.piece(t.bos(), true) : "", t.eos() >= 0 ? t.piece(t.eos(), true) : "");
}

void Conversation::add(const std::string& role, const std::string& content) {
  messages_.push_back({{"role", role}, {"content", content}});
}

std::vector<TokenId> Conversation::prompt() const {
  const Tokenizer& t = model_.tokenizer();
  if (!template_) {
    std::string text;
    for (const auto& message : messages_) text += message["content"].get<std::string>();
    return t.encode(text);
  }
  const std::string text = template_->render(messages_, tools_, options_, nullptr);
  // Most templates write BOS themselves.
  const bool has_bos = t.bos() >= 0 && text.starts_with(t.piece(t.bos(), true));
  return t.encode(text, {.add_special = !has_bos, .parse_special = true});
}

}  // namespace snug
