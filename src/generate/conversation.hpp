#pragma once
/// Messages to prompt tokens, by the template in the model's file.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/model.hpp"
#include "text/chat_template.hpp"

namespace snug {

class Conversation {
public:
  /// `template_name`: "" for the file's own, else a built-in one or the path of a file. Throws Error when it is
  /// unknown.
  Conversation(const Model& model, const std::string& template_name, ChatTemplateOptions options);

  /// False when the file has no template and none was named: text is completed as it stands.
  bool has_template() const { return template_.has_value(); }

  void add(const std::string& role, const std::string& content);
  void clear() { messages_ = nlohmann::ordered_json::array(); }
  const nlohmann::ordered_json& messages() const { return messages_; }
  void set_messages(nlohmann::ordered_json messages) { messages_ = std::move(messages); }
  void set_tools(nlohmann::ordered_json tools) { tools_ = std::move(tools); }

  /// All messages so far, up to where the assistant speaks.
  std::vector<TokenId> prompt() const;

private:
  const Model& model_;
  ChatTemplateOptions options_;
  std::optional<ChatTemplate> template_;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array(), tools_;
};

}  // namespace snug
