#include "text/chat_template.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.hpp"

namespace snug {
namespace {

using Json = nlohmann::ordered_json;

const Json kChat = Json::parse(R"([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"},
                                   {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Bye"}])");

std::string render(std::string_view source, const Json& messages = Json::array(), const Json& extra = Json(),
                   const Json& tools = Json()) {
  return ChatTemplate(source, "<s>", "</s>").render(messages, tools, {}, extra);
}

std::string render_error(std::string_view source, const Json& messages = Json::array()) {
  try {
    return "rendered: " + render(source, messages).substr(0, 100);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ChatTemplate, Chatml) {
  const ChatTemplate chatml(ChatTemplate::builtin("chatml"), "", "");
  const std::string turns =
      "<|im_start|>system\nBe "
      "kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
      "<|im_start|>user\nBye<|im_end|>\n";
  EXPECT_EQ(chatml.render(kChat, nullptr, {}, nullptr), turns + "<|im_start|>assistant\n");
  EXPECT_EQ(chatml.render(kChat, nullptr, {.add_generation_prompt = false}, nullptr), turns);
}

struct BuiltinCase {
  std::string_view name;
  std::string_view expected;
};

class Builtin : public testing::TestWithParam<BuiltinCase> {};

TEST_P(Builtin, RendersItsFormat) {
  EXPECT_EQ(render(ChatTemplate::builtin(GetParam().name), kChat), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(
    All, Builtin,
    testing::Values(
        BuiltinCase{"llama-2", "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]"},
        BuiltinCase{"llama-3",
                    "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user"
                    "<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
                    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant"
                    "<|end_header_id|>\n\n"},
        BuiltinCase{"gemma",
                    "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
                    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"},
        BuiltinCase{"mistral", "<s>[INST] Be kind.\n\nHi [/INST] Hello!</s>[INST] Bye [/INST]"},
        BuiltinCase{
            "phi-3",
            "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n<|user|>\nBye<|end|>"
            "\n<|assistant|>\n"},
        BuiltinCase{"zephyr",
                    "<|system|>\nBe kind.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n"
                    "<|assistant|>\n"},
        BuiltinCase{"vicuna", "<s>Be kind.\n\nUSER: Hi\nASSISTANT: Hello!</s>\nUSER: Bye\nASSISTANT:"},
        BuiltinCase{
            "granite",
            "<|start_of_role|>system<|end_of_role|>Be kind.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>"
            "Hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>Hello!<|end_of_text|>\n<|start_of_role|>"
            "user<|end_of_role|>Bye<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"}));

TEST(ChatTemplate, EveryBuiltinCompilesAndHoldsTheConversation) {
  for (const std::string_view name : ChatTemplate::builtin_names()) {
    const std::string text = render(ChatTemplate::builtin(name), kChat);
    for (const char* part : {"Be kind.", "Hi", "Hello!", "Bye"}) EXPECT_NE(text.find(part), std::string::npos) << name;
  }
  EXPECT_EQ(ChatTemplate::builtin("no such template"), "");
}

TEST(ChatTemplate, JsonAsPythonWritesIt) {
  const Json value = Json::parse(R"({"x": {"z": "<é'\"\n", "a": [1, 1.0, 1e-7, 1e22, true, null], "e": {}, "l": []}})");
  EXPECT_EQ(render("{{ x | tojson }}", {}, value),
            R"({"z": "<é'\"\n", "a": [1, 1.0, 1e-07, 1e+22, true, null], "e": {}, "l": []})");
  EXPECT_EQ(render("{{ {'a': [1, {}]} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1,\n    {}\n  ]\n}");
  EXPECT_EQ(render("{{ {'b': 1, 'a': 'é😀'} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}"),
            R"({"a":"\u00e9\ud83d\ude00","b":1})");
}

TEST(ChatTemplate, PrintsAsPython) {
  EXPECT_EQ(render("{{ true }} {{ none }} {{ 1.0 }} {{ 1e22 }} {{ [1, 'a', none, {'k': true}] }}"),
            "True None 1.0 1e+22 [1, 'a', None, {'k': True}]");
  EXPECT_EQ(render("{{ 'a,b'.split(',')[-1] ~ ' x '.strip() ~ 'abc'[::-1] ~ 'abc'[1:] ~ 'xyx'.rstrip('x') }}"),
            "bxcbabcxy");
  EXPECT_EQ(
      render("{{ 'a' in 'cat' }} {{ ([1] + [2])|length }} {{ 'x' is string }} {{ {} is mapping }} {{ q is defined }}"),
      "True 2 True True False");
}

TEST(ChatTemplate, GeneratorsAndNoneAsInJinja2) {
  EXPECT_EQ(render("{% if [] | select | list %}full{% else %}empty{% endif %}{% if [] | select %} true{% endif %}"),
            "empty true");
  EXPECT_NE(render_error("{{ [1] | select | tojson }}").find("generator"), std::string::npos);
  EXPECT_NE(render_error("{% for tool in tools %}{% endfor %}").find("None is not iterable"), std::string::npos);
}

TEST(ChatTemplate, TagsOfTransformers) {
  EXPECT_EQ(
      render("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}"
             "{{ i }}{% endfor %}"),
      "02");
  EXPECT_EQ(render("a\n{%- generation %}\nb\n{% endgeneration -%}\n c"), "ab\nc");
  EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"),
            "3");
  EXPECT_EQ(render("{{ strftime_now('%Y') | length }}"), "4");
}

TEST(ChatTemplate, OptionsReachTheTemplate) {
  const ChatTemplate compiled(
      "{{ enable_thinking | default('unset') }} {{ tools | length }} {{ extra }} {{ bos_token }}", "<s>", "");
  const Json tools = Json::array({1, 2});
  EXPECT_EQ(compiled.render(kChat, tools, {}, Json{{"extra", "x"}}), "unset 2 x <s>");
  EXPECT_EQ(compiled.render(kChat, tools, {.enable_thinking = 0}, Json{{"extra", "x"}}), "False 2 x <s>");
  EXPECT_EQ(compiled.render(kChat, tools, {.enable_thinking = 1}, nullptr), "True 2  <s>");
}

TEST(ChatTemplate, KeepsNulAndEmptyText) {
  EXPECT_EQ(render(""), "");
  const Json messages = Json::array({{{"role", "user"}, {"content", std::string("a\0b", 3)}}});
  EXPECT_EQ(render("{{ messages[0].content }}", messages), std::string("a\0b", 3));
}

TEST(ChatTemplate, ErrorsAreOneLine) {
  EXPECT_NE(render_error("{{ raise_exception('Roles must\nalternate') }}").find("Roles must alternate"),
            std::string::npos);
  EXPECT_NE(render_error("\n\n{{ x.y.z }}").find("line 3"), std::string::npos);
  EXPECT_THROW(ChatTemplate("{% if %}", "", ""), FormatError);
  EXPECT_THROW(ChatTemplate("\xff\xfe", "", ""), FormatError);
  const Json broken = Json::array({{{"role", "user"}, {"content", "\xc3("}}});
  EXPECT_NE(render_error("{{ messages[0].content }}", broken).find("UTF-8"), std::string::npos);
}

class Hostile : public testing::TestWithParam<std::string> {};

TEST_P(Hostile, EndsInAnError) {
  EXPECT_EQ(render_error(GetParam()).rfind("rendered", 0), std::string::npos);
}

std::string repeated(std::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    All, Hostile,
    testing::Values(
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x' * 10000000000 }}", "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s ~ '' "
        "}}",
        "{% set a = [1] %}" + repeated("{% set a = [a, a] %}", 60) + "{{ (a ~ '') | length }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}", "{{ " + repeated("(", 100000) + " }}",
        repeated("{% if 1 %}", 50000), "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ ('a\n' * 1000) | indent(100000000) }}", "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ strftime_now('%1000000Y') }}", "{{ range(-9e18 | int, 9e18 | int) }}", "{% include '/etc/passwd' %}",
        "{% raw %}", "{{ 'abc", "{% generation"));

TEST(ChatTemplate, SharedByThreads) {
  const ChatTemplate compiled(ChatTemplate::builtin("llama-3"), "<s>", "");
  const std::string expected = compiled.render(kChat, nullptr, {}, nullptr);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { EXPECT_EQ(compiled.render(kChat, nullptr, {}, nullptr), expected); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace snug
