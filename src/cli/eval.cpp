// eval ppl, eval kl: quality on a text.

#include <unistd.h>

#include <chrono>

#include "base/file.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "measure/quality.hpp"
#include "measure/routing.hpp"
#include "plan/routing_profile.hpp"
#include "weights/expert_policy.hpp"

namespace snug {

namespace {

struct EvalOptions {
  EngineOptions engine;
  std::string text;
  TextWindows windows;
  bool json = false, save = false, oracle = false;
};

void add_common(CLI::App& command, EvalOptions& options) {
  add_engine_options(command, options.engine);
  command.add_option("--text", options.text, "the text, a file")->required();
  add_option(command, "--context", options.windows.context, "tokens per window")
      ->check(CLI::Range(8, 1 << 24))
      ->capture_default_str();
  add_option(command, "--max-tokens", options.windows.max_tokens, "use only so many tokens of the text");
  command.add_flag("--json", options.json, "for programs");
}

void add_sparse(CLI::App& command, EvalOptions& options) {
  add_kv_option(command, options.engine);
  add_sparse_option(command, options.engine);
  command.add_flag("--oracle", options.oracle,
                   "with --sparse-ffn: choose by the true activations, to see what the predictor loses");
}

/// The model that is judged. Sparse blocks are those of decode, so its tokens go one by one.
Engine load_judged(EvalOptions& options) {
  options.windows.one_by_one = options.engine.sparse_share > 0;
  ModelOptions model_options;
  model_options.sparse_ffn.measure = true;
  model_options.sparse_ffn.oracle = options.oracle;
  return load_engine(options.engine, model_options);
}

nlohmann::ordered_json sparse_json(const SparseFfnStats& s) {
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
  return {{"energy_kept", share(s.kept, s.energy)},
          {"active", share(static_cast<double>(s.active), static_cast<double>(s.all))},
          {"active_missed", share(static_cast<double>(s.missed), static_cast<double>(s.active))},
          {"hit_ratio", s.neurons.hit_ratio()},
          {"bytes_read_per_token", s.tokens ? s.neurons.bytes_read / s.tokens : 0}};
}

void print_sparse(const SparseFfnStats& s) {
  if (s.tokens == 0) return;
  const nlohmann::ordered_json json = sparse_json(s);
  const auto percent = [&](const char* name) { return 100 * json[name].get<double>(); };
  fmt::print(
      "the neurons used hold {:.2f}% of the activations' energy; {:.1f}% of the neurons are active, of which {:.1f}% "
      "are missed\n{:.0f}% of the neurons used were in memory, {} read per token\n",
      percent("energy_kept"), percent("active"), percent("active_missed"), percent("hit_ratio"),
      format_bytes(json["bytes_read_per_token"].get<Bytes>()));
}

void show_progress(TextWindows& windows) {
  if (!isatty(STDERR_FILENO)) return;
  windows.progress = [](std::size_t done, std::size_t all) {
    fmt::print(stderr, "\r{} of {} windows{}", done, all, done == all ? "\n" : "");
  };
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run_perplexity(EvalOptions& options) {
  const std::string text = read_text_file(options.text);
  const Engine engine = load_judged(options);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<TokenId> tokens = engine.model->tokenizer().encode(text);
  show_progress(options.windows);
  const PerplexityResult r = perplexity(*engine.model, tokens, options.windows);
  const Bytes weights = engine.ledger->report().by_tag[static_cast<std::size_t>(Tag::weights)];
  if (options.json) {
    const nlohmann::ordered_json json = {
        {"model", engine.name},
        {"text_bytes", text.size()},
        {"tokens", r.tokens},
        {"context", options.windows.context},
        {"nll", r.nll},
        {"ppl", r.perplexity},
        {"kv", parse_kv_choice(options.engine.kv).name()},
        {"kv_bytes_per_token", engine.model->kv_bytes(options.windows.context) / options.windows.context},
        {"weight_bytes", weights},
        {"sparse_ffn", sparse_json(engine.model->sparse_ffn_stats())},
        {"seconds", seconds_since(start)}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("perplexity {:.4f} +- {:.4f} over {} tokens (windows of {}, second halves scored)\n", r.perplexity,
               r.standard_error, r.tokens, options.windows.context);
    print_sparse(engine.model->sparse_ffn_stats());
  }
}

void run_divergence(EvalOptions& options) {
  const std::string text = read_text_file(options.text);
  const Engine engine = load_judged(options), reference = load_engine(options.engine, {.reference = true});
  const std::vector<TokenId> tokens = engine.model->tokenizer().encode(text);
  show_progress(options.windows);
  const DivergenceResult r = divergence(*engine.model, *reference.model, tokens, options.windows);
  if (options.json) {
    const nlohmann::ordered_json json = {{"model", engine.name},
                                         {"tokens", r.tokens},
                                         {"context", options.windows.context},
                                         {"mean_kl", r.mean_kl},
                                         {"max_kl", r.max_kl},
                                         {"same_top", r.same_top},
                                         {"sparse_ffn", sparse_json(engine.model->sparse_ffn_stats())}};
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("mean KL {:.6f}, largest {:.6f}, same likeliest token {:.2f}% over {} tokens\n", r.mean_kl, r.max_kl,
               100 * r.same_top, r.tokens);
    print_sparse(engine.model->sparse_ffn_stats());
  }
}

void run_routing(EvalOptions& options) {
  const std::string text = read_text_file(options.text);
  const Engine engine = load_engine(options.engine);
  std::vector<TokenId> tokens = engine.model->tokenizer().encode(text);
  tokens.resize(std::min(tokens.size(), options.windows.max_tokens ? options.windows.max_tokens : 1024));
  RoutingTrace trace;
  engine.model->record_routing(&trace);
  const auto sequence = engine.model->new_sequence(tokens.size());
  std::vector<float> logits(engine.model->config().vocab_size);
  for (const TokenId token : tokens) {
    const Row row{token, sequence.get(), true};
    engine.model->forward(std::span(&row, 1), logits);
  }
  constexpr std::size_t kSegment = 16;
  const std::size_t all = trace.experts * trace.chosen.size(), warm_up = tokens.size() / 4;
  nlohmann::ordered_json json = {{"model", engine.name},
                                 {"tokens", tokens.size()},
                                 {"segment", kSegment},
                                 {"srp_1x", segment_routing_performance(trace, kSegment, trace.used)},
                                 {"srp_2x", segment_routing_performance(trace, kSegment, 2 * trace.used)},
                                 {"caches", nlohmann::ordered_json::array()}};
  for (const std::size_t percent : {10, 20, 35, 50}) {
    const std::size_t capacity = std::max(trace.used, all * percent / 100);
    nlohmann::ordered_json cache = {{"percent_of_experts", percent},
                                    {"sch", segment_cache_hit_rate(trace, kSegment, capacity)}};
    for (const ExpertPolicyInfo& policy : expert_policies())
      cache[std::string(policy.name)] = simulate_expert_cache(trace, policy.name, capacity, warm_up);
    json["caches"].push_back(cache);
  }
  if (options.save) json["saved"] = save_routing_profile(engine.model->file(), make_routing_profile(trace, kSegment));
  if (options.json) {
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print(
      "{} tokens; in segments of {}, the best {} experts of a layer cover {:.1f}% of its choices, the best {} "
      "{:.1f}%\n",
      tokens.size(), kSegment, trace.used, 100 * json["srp_1x"].get<double>(), 2 * trace.used,
      100 * json["srp_2x"].get<double>());
  for (const auto& cache : json["caches"]) {
    fmt::print("\ncache of {}% of the experts\n", cache["percent_of_experts"].get<int>());
    for (const auto& [name, value] : cache.items())
      if (name != "percent_of_experts") fmt::print("  {:<14} {:5.1f}% hits\n", name, 100 * value.get<double>());
  }
  if (options.save) fmt::print("\nsaved for `snug plan`: {}\n", json["saved"].get<std::string>());
}

}  // namespace

void add_eval(CLI::App& app) {
  CLI::App* eval = app.add_subcommand("eval", "measure quality on a text");
  eval->require_subcommand(1);
  auto options = std::make_shared<EvalOptions>();
  CLI::App* ppl = eval->add_subcommand("ppl", "perplexity (windows, second half of each scored, as llama.cpp does)");
  add_common(*ppl, *options);
  add_sparse(*ppl, *options);
  ppl->footer("Example:\n  snug eval ppl qwen2.5-coder-0.5b --text book.txt --context 512");
  ppl->callback([options] { run_perplexity(*options); });
  CLI::App* kl = eval->add_subcommand("kl", "divergence from the same model computed in f32");
  add_common(*kl, *options);
  add_sparse(*kl, *options);
  kl->footer(
      "Example:\n  snug eval kl smollm2-135m --text book.txt --max-tokens 2048\n"
      "  snug eval kl smollm2-135m --text book.txt --max-tokens 2048 --sparse-ffn=0.5");
  kl->callback([options] { run_divergence(*options); });
  CLI::App* routing = eval->add_subcommand("routing", "how often experts repeat, and what caches of them would do");
  add_common(*routing, *options);
  routing->add_flag("--save", options->save, "beside the model, for the hit rates that `snug plan` foresees");
  routing->footer("Example:\n  snug eval routing olmoe --text book.txt --max-tokens 1024 --save");
  routing->callback([options] { run_routing(*options); });
}

}  // namespace snug
