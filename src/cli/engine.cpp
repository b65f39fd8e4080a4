#include "cli/engine.hpp"

#include <unistd.h>

#include <filesystem>

#include "cli/model_store.hpp"
#include "format/pack.hpp"

namespace snug {

void add_engine_options(CLI::App& command, EngineOptions& options) {
  command
      .add_option("MODEL", options.model,
                  "a name (see `snug list`), a path, hf:owner/repo[:QUANT] or hf:owner/repo/file.gguf")
      ->required();
  add_option(command, "--memory", options.memory,
             "budget for weights, KV cache and everything else, e.g. 512MiB or 50%");
  add_option(command, "-t,--threads", options.threads, "compute threads (default: one per CPU)")
      ->check(CLI::Range(1u, 1024u));
}

void add_kv_option(CLI::App& command, EngineOptions& options) {
  add_option(command, "--kv", options.kv,
             fmt::format("how older keys and values are kept: {}, or KEYS/VALUES (default bf16; the others lose "
                         "quality); then, for some layers, ,CODEC:FIRST-LAST, and for tokens beyond an age, "
                         ",CODEC@TOKENS: \"q8,kivi-2:4-20,cq-1@4096\"",
                         kv_method_names()));
  add_option(
      command, "--kv-memory", options.kv_memory,
      "most memory for keys and values, e.g. 96MiB, or auto: what --memory leaves; older ones are read from a file in "
      "TMPDIR (or /var/tmp), with the same results");
  add_option(command, "--kv-recall", options.kv_recall,
             "beside pages that --kv keeps, write them to that file as they are, and bring back those that matter to "
             "the next token, into so much memory (SpeCache); prompts see all pages exactly");
}

void add_sparse_option(CLI::App& command, EngineOptions& options) {
  add_option(command, "--sparse-ffn", options.sparse_share,
             "decode with this share of the feed-forward neurons, chosen for each token (default 0.5; loses quality; "
             "`snug sparsify` comes first)")
      ->check(CLI::Range(0.001f, 1.0f))
      ->expected(0, 1)
      ->default_str("0.5");
}

Bytes budget_of(const EngineOptions& options, const MemoryInfo& info) {
  if (!options.memory.empty()) return parse_size(options.memory, std::min(info.limit, info.physical));
  return default_budget(info);
}

Bytes budget_of(const EngineOptions& options) {
  const Bytes budget = budget_of(options, memory_info());
  if (options.memory.empty() && isatty(STDERR_FILENO))
    fmt::print(stderr, "memory budget: {} (90% of what is free; --memory SIZE sets it)\n", format_bytes(budget));
  return budget;
}

ModelOptions with_engine_options(ModelOptions model_options, const EngineOptions& options, Bytes budget) {
  model_options.charge_process = true;
  if (!model_options.reference) {
    model_options.sparse_ffn.share = options.sparse_share;
    model_options.kv = parse_kv_choice(options.kv);
    if (options.kv_memory == "auto")
      model_options.kv_spill.limit = KvSpillOptions::kUnderPressure;
    else if (!options.kv_memory.empty())
      model_options.kv_spill.limit = std::max<Bytes>(1, parse_size(options.kv_memory, budget));
    if (!options.kv_recall.empty())
      model_options.kv_spill.recall = std::max<Bytes>(1, parse_size(options.kv_recall, budget));
  }
  return model_options;
}

Engine load_engine(const EngineOptions& options, ModelOptions model_options) {
  const std::string path = find_or_fetch_model(options.model);
  const Bytes budget = budget_of(options);
  Engine engine;
  engine.name = options.model;
  engine.ledger = std::make_unique<Ledger>(budget);
  engine.pool = std::make_unique<ThreadPool>(options.threads);
  model_options = with_engine_options(std::move(model_options), options, budget);
  if (options.foresee) engine.machine = machine_for(*engine.pool, path, budget);
  try {
    engine.model = Model::load(path, *engine.ledger, *engine.pool, model_options);
  } catch (const OutOfBudget&) {
    // What would do is known from a plan, which needs no weights.
    Ledger unlimited(Ledger::kUnlimited);
    model_options.load_weights = false;
    model_options.plan_for = budget;
    const std::size_t context = model_options.context ? model_options.context : kUsualContext;
    const Bytes least = Model::load(path, unlimited, *engine.pool, model_options)->plan(budget, context).smallest;
    fail("{} does not fit into {}: with a context of {} tokens the smallest budget is {}", options.model,
         format_bytes(budget), context, format_bytes(round_up(least, kMiB)));
  }
  return engine;
}

void recommended_sampling(const GgufFile& file, const CLI::App& command, SamplerOptions& sampler) {
  const auto take = [&](const char* flag, const char* key, auto& value) {
    const auto given = file.get_float(std::string("general.sampling.") + key);
    if (given && command.count(flag) == 0) value = static_cast<std::remove_reference_t<decltype(value)>>(*given);
  };
  take("--temp", "temp", sampler.temperature);
  take("--top-k", "top_k", sampler.top_k);
  take("--top-p", "top_p", sampler.top_p);
  take("--min-p", "min_p", sampler.min_p);
}

MachineProfile machine_for(ThreadPool& pool, const std::string& model_path, Bytes budget, bool again) {
  const std::string pack = pack_path(model_path);
  std::error_code error;
  const bool packed = std::filesystem::exists(pack, error);
  return machine_profile(pool, packed ? pack : model_path, std::min(budget / 2, 128 * kMiB), again);
}

nlohmann::ordered_json ledger_json(const Ledger& ledger) {
  nlohmann::ordered_json json;
  const LedgerReport report = ledger.report();
  for (std::size_t i = 0; i < kTagCount; ++i) json[std::string(tag_name(static_cast<Tag>(i)))] = report.by_tag[i];
  json["used"] = report.used;
  json["peak"] = report.peak;
  json["limit"] = report.limit;
  return json;
}

}  // namespace snug
