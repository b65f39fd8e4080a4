// Renders chat templates for bench/peers/template_compare.py: one JSON object per input line
// {"template", "bos_token", "eos_token", "messages", "tools", "add_generation_prompt", "extra"}, one per output line
// {"text"} or {"error"}.

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "text/chat_template.hpp"

namespace {

using Json = nlohmann::ordered_json;

std::string render(const Json& task) {
  const snug::ChatTemplate compiled(task.at("template").get<std::string>(), task.value("bos_token", ""),
                                    task.value("eos_token", ""));
  snug::ChatTemplateOptions options;
  options.add_generation_prompt = task.value("add_generation_prompt", true);
  return compiled.render(task.at("messages"), task.value("tools", Json()), options, task.value("extra", Json()));
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    Json answer;
    try {
      answer["text"] = render(Json::parse(line));
    } catch (const std::exception& error) {
      answer["error"] = error.what();
    }
    std::cout << answer.dump() << std::endl;
  }
}
