#pragma once
/// The options that every command with a model has, and the model they load.

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/ledger.hpp"
#include "base/memory_info.hpp"
#include "base/thread_pool.hpp"
#include "generate/sampler.hpp"
#include "model/model.hpp"
#include "plan/prediction.hpp"

namespace snug {

struct EngineOptions {
  std::string model, memory;
  unsigned threads = 0;
  std::string kv;          ///< how pages of the KV cache are kept (kv/kv_codec.hpp)
  std::string kv_memory;   ///< of it that may be in memory; the rest goes to the disk
  std::string kv_recall;   ///< memory for exact pages that come back beside coded ones (kv/kv_recall.hpp)
  float sparse_share = 0;  ///< of feed-forward neurons; 0: all of them, by the ordinary way
  bool foresee = false;    ///< measure the machine before the model is loaded
};

/// MODEL, --memory and -t.
void add_engine_options(CLI::App& command, EngineOptions& options);

/// --kv CODEC, --kv-memory SIZE and --kv-recall SIZE.
void add_kv_option(CLI::App& command, EngineOptions& options);

/// --sparse-ffn[=SHARE].
void add_sparse_option(CLI::App& command, EngineOptions& options);

/// --memory, or 90% of what is free, in the machine that `info` describes.
Bytes budget_of(const EngineOptions& options, const MemoryInfo& info);
/// In this machine, now; says so when it is not --memory.
Bytes budget_of(const EngineOptions& options);

/// What the options say of how a model is loaded, within a budget. Throws UsageError.
ModelOptions with_engine_options(ModelOptions model_options, const EngineOptions& options, Bytes budget);

/// A loaded model with what it needs. Members are destroyed in reverse order: the model first.
struct Engine {
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Model> model;
  std::string name;                       ///< as the user gave it
  std::optional<MachineProfile> machine;  ///< when it was asked to foresee
};
/// Finds the model (a known name is fetched when it is not there yet) and loads it within the budget.
Engine load_engine(const EngineOptions& options, ModelOptions model_options = {});

/// The file's own recommendation, where the command line says nothing (--temp, --top-k, --top-p, --min-p).
void recommended_sampling(const GgufFile& file, const CLI::App& command, SamplerOptions& sampler);

/// What the machine does now, as far as weights of this model are concerned; needs half of the budget for a moment.
MachineProfile machine_for(ThreadPool& pool, const std::string& model_path, Bytes budget, bool again = false);

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const Prediction& prediction);

/// {"weights": bytes, ...}
nlohmann::ordered_json ledger_json(const Ledger& ledger);

/// Gives an option the environment variable SNUG_NAME (dashes become underscores).
inline CLI::Option* with_variable(CLI::Option* option) {
  if (!option->get_lnames().empty()) {
    std::string variable = "SNUG_" + option->get_lnames().front();
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    option->envname(variable);
  }
  return option;
}

/// Adds `name` with its environment variable.
template <class T>
CLI::Option* add_option(CLI::App& command, const std::string& name, T& value, const std::string& help) {
  return with_variable(command.add_option(name, value, help));
}
inline CLI::Option* add_flag(CLI::App& command, const std::string& name, bool& value, const std::string& help) {
  return with_variable(command.add_flag(name, value, help));
}

}  // namespace snug
