// Chat templates by name, for files that carry none. Each is written from the model family's published prompt format.

#include <array>
#include <utility>

#include "text/chat_template.hpp"

namespace snug {
namespace {

constexpr std::string_view kChatml = R"({% for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";

// The system message stands inside the first user turn.
constexpr std::string_view kLlama2 = R"({% set ns = namespace(system='') -%}
{% for message in messages -%}
{% if message.role == 'system' -%}
{% set ns.system = '<<SYS>>\n' ~ message.content ~ '\n<</SYS>>\n\n' -%}
{% elif message.role == 'user' -%}
{{ bos_token ~ '[INST] ' ~ ns.system ~ message.content | trim ~ ' [/INST]' -}}
{% set ns.system = '' -%}
{% else -%}
{{ ' ' ~ message.content | trim ~ ' ' ~ eos_token -}}
{% endif -%}
{% endfor %})";

constexpr std::string_view kLlama3 = R"({{ bos_token -}}
{% for message in messages -%}
{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ message.content | trim ~ '<|eot_id|>' -}}
{% endfor -%}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";

// No system role: its text opens the first user turn.
constexpr std::string_view kGemma = R"({{ bos_token -}}
{% set ns = namespace(system='') -%}
{% for message in messages -%}
{% if message.role == 'system' -%}
{% set ns.system = message.content | trim ~ '\n\n' -%}
{% else -%}
{% set role = 'model' if message.role == 'assistant' else message.role -%}
{{ '<start_of_turn>' ~ role ~ '\n' ~ ns.system ~ message.content | trim ~ '<end_of_turn>\n' -}}
{% set ns.system = '' -%}
{% endif -%}
{% endfor -%}
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %})";

constexpr std::string_view kMistral = R"({{ bos_token -}}
{% set ns = namespace(system='') -%}
{% for message in messages -%}
{% if message.role == 'system' -%}
{% set ns.system = message.content ~ '\n\n' -%}
{% elif message.role == 'user' -%}
{{ '[INST] ' ~ ns.system ~ message.content ~ ' [/INST]' -}}
{% set ns.system = '' -%}
{% else -%}
{{ ' ' ~ message.content | trim ~ eos_token -}}
{% endif -%}
{% endfor %})";

constexpr std::string_view kPhi3 = R"({% for message in messages -%}
<|{{ message.role }}|>
{{ message.content }}<|end|>
{% endfor -%}
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";

constexpr std::string_view kPhi4 = R"({% for message in messages -%}
{{ '<|im_start|>' ~ message.role ~ '<|im_sep|>' ~ message.content ~ '<|im_end|>' -}}
{% endfor -%}
{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %})";

constexpr std::string_view kZephyr = R"({% for message in messages -%}
<|{{ message.role }}|>
{{ message.content ~ eos_token }}
{% endfor -%}
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";

constexpr std::string_view kVicuna = R"({{ bos_token -}}
{% for message in messages -%}
{% if message.role == 'system' -%}
{{ message.content | trim ~ '\n\n' -}}
{% elif message.role == 'user' -%}
{{ 'USER: ' ~ message.content | trim ~ '\n' -}}
{% else -%}
{{ 'ASSISTANT: ' ~ message.content | trim ~ eos_token ~ '\n' -}}
{% endif -%}
{% endfor -%}
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %})";

constexpr std::string_view kAlpaca = R"({% for message in messages -%}
{% if message.role == 'system' -%}
{{ message.content ~ '\n\n' -}}
{% elif message.role == 'user' -%}
{{ '### Instruction:\n' ~ message.content ~ '\n\n' -}}
{% else -%}
{{ '### Response:\n' ~ message.content ~ eos_token ~ '\n\n' -}}
{% endif -%}
{% endfor -%}
{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %})";

constexpr std::string_view kDeepseek = R"({{ bos_token -}}
{% for message in messages -%}
{% if message.role == 'system' -%}
{{ message.content -}}
{% elif message.role == 'user' -%}
{{ '<｜User｜>' ~ message.content -}}
{% else -%}
{{ '<｜Assistant｜>' ~ message.content ~ '<｜end▁of▁sentence｜>' -}}
{% endif -%}
{% endfor -%}
{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %})";

constexpr std::string_view kCommandR = R"({{ bos_token -}}
{% for message in messages -%}
{% set role = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'}[message.role] -%}
{{ '<|START_OF_TURN_TOKEN|><|' ~ role ~ '_TOKEN|>' ~ message.content | trim ~ '<|END_OF_TURN_TOKEN|>' -}}
{% endfor -%}
{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %})";

constexpr std::string_view kGranite = R"({% for message in messages -%}
{{ '<|start_of_role|>' ~ message.role ~ '<|end_of_role|>' ~ message.content ~ '<|end_of_text|>\n' -}}
{% endfor -%}
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %})";

constexpr std::array<std::pair<std::string_view, std::string_view>, 13> kBuiltins{{
    {"chatml", kChatml},
    {"llama-2", kLlama2},
    {"llama-3", kLlama3},
    {"gemma", kGemma},
    {"mistral", kMistral},
    {"phi-3", kPhi3},
    {"phi-4", kPhi4},
    {"zephyr", kZephyr},
    {"vicuna", kVicuna},
    {"alpaca", kAlpaca},
    {"deepseek", kDeepseek},
    {"command-r", kCommandR},
    {"granite", kGranite},
}};

}  // namespace

std::string_view ChatTemplate::builtin(std::string_view name) {
  for (const auto& [known, source] : kBuiltins) {
    if (known == name) return source;
  }
  return {};
}

std::vector<std::string_view> ChatTemplate::builtin_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, source] : kBuiltins) names.push_back(name);
  return names;
}

}  // namespace snug
