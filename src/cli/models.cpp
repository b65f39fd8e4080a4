// pull, list, rm: the models on this machine.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/fetch.hpp"
#include "cli/manifest.hpp"
#include "cli/model_store.hpp"

namespace snug {

void add_pull(CLI::App& app) {
  auto model = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("pull", "get a model");
  command->add_option("MODEL", *model, "a name (see `snug list`), hf:owner/repo[:QUANT] or hf:owner/repo/file.gguf")
      ->required();
  command->footer("Examples:\n  snug pull smollm2-135m\n  snug pull hf:Qwen/Qwen3-4B-GGUF:Q4_K_M");
  command->callback([model] {
    const std::string here = find_model(*model);
    fmt::print("{}\n", here.empty() ? find_or_fetch_model(*model) : here);
  });
}

void add_list(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("list", "models that are here, and those that `snug pull` knows")->alias("ls");
  command->add_flag("--json", *json, "for programs");
  command->callback([json] {
    const std::vector<StoredModel> stored = stored_models();
    const auto is_here = [&](std::string_view name) {
      return std::any_of(stored.begin(), stored.end(), [&](const StoredModel& m) { return m.name == name; });
    };
    if (*json) {
      nlohmann::ordered_json all = {{"models", nlohmann::json::array()}, {"known", nlohmann::json::array()}};
      for (const StoredModel& m : stored)
        all["models"].push_back({{"name", m.name}, {"path", m.path}, {"bytes", m.bytes}});
      for (const KnownModel& m : known_models())
        all["known"].push_back({{"name", m.name}, {"description", m.description}});
      fmt::print("{}\n", all.dump());
      return;
    }
    for (const StoredModel& m : stored) fmt::print("{:<24} {:>8}  {}\n", m.name, format_bytes(m.bytes), m.path);
    for (const KnownModel& m : known_models())
      if (!is_here(m.name)) fmt::print("{:<24} {:>8}  {} (snug pull {})\n", m.name, "-", m.description, m.name);
  });
}

void add_rm(CLI::App& app) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("rm", "remove fetched models");
  command->add_option("MODEL", *names, "names as `snug list` shows them")->required();
  command->callback([names] {
    for (const std::string& name : *names) {
      bool found = false;
      for (const StoredModel& m : stored_models())
        if (m.name == name) {
          found = std::filesystem::remove(m.path);
          for (const char* made : {".snug", ".ffn", ".routing"})  // by snug pack, sparsify, eval routing
            std::filesystem::remove(m.path + made);
        }
      if (!found) fail("model '{}' is not in {}", name, model_folder());
    }
  });
}

}  // namespace snug
