#include "text/chat_template.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "snug_rust.h"
#include "text/rust_text.hpp"

namespace snug {
struct ChatTemplate::Impl {
  std::unique_ptr<snug_template, decltype(&snug_template_free)> compiled{nullptr, snug_template_free};
  std::string bos_token;
  std::string eos_token;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string_view bos_token, std::string_view eos_token)
    : impl_(std::make_unique<Impl>()) {
  snug_bytes error{};
  impl_->compiled.reset(snug_template_new(source.data(), source.size(), &error));
  if (impl_->compiled == nullptr) fail<FormatError>("chat template: {}", take_text(error));
  impl_->bos_token = bos_token;
  impl_->eos_token = eos_token;
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& tools,
                                 const ChatTemplateOptions& options, const nlohmann::ordered_json& extra) const {
  nlohmann::ordered_json variables;
  variables["messages"] = messages;
  variables["tools"] = tools;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = options.add_generation_prompt;
  variables["bos_token"] = impl_->bos_token;
  variables["eos_token"] = impl_->eos_token;
  if (options.enable_thinking >= 0) variables["enable_thinking"] = options.enable_thinking != 0;
  if (extra.is_object()) variables.update(extra);

  std::string json;
  try {
    json = variables.dump();
  } catch (const nlohmann::json::exception&) {
    fail("the conversation is not valid UTF-8");
  }
  snug_bytes result{};
  snug_bytes error{};
  int raised = 0;
  if (snug_template_render(impl_->compiled.get(), json.data(), json.size(), &result, &error, &raised) != 0) {
    fail("{}{}", raised != 0 ? "the chat template refuses this conversation: " : "chat template: ", take_text(error));
  }
  return take_text(result);
}

}  // namespace snug
