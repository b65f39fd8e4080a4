// bench: speed, and its share of what the machine can do.

#include <algorithm>
#include <chrono>

#include "base/memory_info.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "kernels/kernels.hpp"
#include "measure/machine_limits.hpp"

namespace snug {

namespace {

struct BenchOptions {
  EngineOptions engine;
  std::size_t prompt = 512, generate = 128;
  std::vector<std::size_t> depths{0}, prefill_depths, batches;
  int repeats = 3;
  bool json = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Any tokens do: speed does not depend on them (a mixture of experts is fed ordinary variety).
TokenId token_at(const Model& model, std::size_t i) {
  return static_cast<TokenId>((i * 7919 + 13) % model.config().vocab_size);
}

/// Feeds `count` tokens; logits of the last one only.
void feed(Model& model, Sequence& sequence, std::size_t count, std::vector<float>& logits) {
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(token_at(model, sequence.length() + i));
  model.feed(sequence, tokens, logits);
}

double measure_prefill(Model& model, std::size_t tokens, std::size_t depth, int repeats, std::vector<float>& logits) {
  const auto sequence = model.new_sequence(depth + tokens);
  feed(model, *sequence, depth, logits);
  std::vector<double> speeds;
  for (int i = 0; i < repeats; ++i) {
    if (sequence->truncate(depth) != depth) feed(model, *sequence, depth - sequence->length(), logits);
    const auto start = std::chrono::steady_clock::now();
    feed(model, *sequence, tokens, logits);
    speeds.push_back(static_cast<double>(tokens) / seconds_since(start));
  }
  return median(speeds);
}

struct Decode {
  std::size_t depth = 0, batch = 1;
  double step_seconds = 0;  ///< mean
  double bytes = 0;         ///< read per step
  Bytes kv = 0;             ///< of all sequences, as the model foresees it
  Bytes kv_charged = 0;     ///< the same in the ledger
  Bytes resident = 0;       ///< what the process grew by meanwhile
};

/// `batch` sequences at `depth`, one token each per step.
Decode measure_decode(Model& model, const Ledger& ledger, std::size_t depth, std::size_t batch, std::size_t steps,
                      std::vector<float>& logits) {
  const auto charged = [&] { return ledger.report().by_tag[static_cast<std::size_t>(Tag::kv)]; };
  const Bytes resident_before = resident_bytes(), charged_before = charged();
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<Row> rows;
  for (std::size_t b = 0; b < batch; ++b) {
    sequences.push_back(model.new_sequence(depth + steps + 1));
    feed(model, *sequences.back(), depth, logits);
    rows.push_back({token_at(model, b), sequences.back().get(), true});
  }
  logits.resize(std::max(logits.size(), batch * model.config().vocab_size));
  model.forward(rows, logits);  // the first step warms caches
  Decode result{.depth = depth, .batch = batch};
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < steps; ++i) {
    const ForwardStats cost = model.forward(rows, logits);
    result.bytes += static_cast<double>(cost.weight_bytes + cost.kv_bytes) / static_cast<double>(steps);
  }
  result.step_seconds = seconds_since(start) / static_cast<double>(steps);
  result.kv = batch * model.kv_bytes(sequences.front()->length());
  result.kv_charged = charged() - charged_before;
  result.resident = std::max(resident_bytes(), resident_before) - resident_before;
  return result;
}

void run_bench(const BenchOptions& options) {
  const auto load_start = std::chrono::steady_clock::now();
  const Engine engine = load_engine(
      options.engine,
      {.max_rows = std::max<std::size_t>(512, *std::max_element(options.batches.begin(), options.batches.end()))});
  const double load_seconds = seconds_since(load_start);
  Model& model = *engine.model;
  std::vector<float> logits(model.config().vocab_size);
  const Bytes resident_peak = peak_resident_bytes();
  const double bandwidth = measure_read_bandwidth(*engine.pool, *engine.ledger), int8 = measure_int8_peak(*engine.pool);
  const bool human = !options.json;
  if (human)
    fmt::print("{}, {} threads, {}; loaded in {:.2f} s; reads {:.1f} GB/s, int8 {:.2f} Tops\n", engine.name,
               engine.pool->size(), kernels().name, load_seconds, bandwidth / 1e9, int8 / 1e12);
  nlohmann::ordered_json json = {{"model", engine.name},
                                 {"threads", engine.pool->size()},
                                 {"isa", kernels().name},
                                 {"kv", parse_kv_choice(options.engine.kv).name()},
                                 {"load_seconds", load_seconds}};
  for (const std::size_t depth : options.prefill_depths) {
    if (options.prompt == 0) break;
    const double speed = measure_prefill(model, options.prompt, depth, options.repeats, logits);
    if (human) fmt::print("prefill {:>5} at depth {:>6}: {:>8.1f} tokens/s\n", options.prompt, depth, speed);
    if (depth == 0) json["prefill_tok_s"] = speed;
    json["prefill"].push_back({{"depth", depth}, {"tokens", options.prompt}, {"tok_s", speed}});
  }
  json["decode"] = nlohmann::json::array();
  for (const std::size_t depth : options.depths)
    for (const std::size_t batch : options.batches) {
      if (options.generate == 0) break;
      const Decode d = measure_decode(model, *engine.ledger, depth, batch, options.generate, logits);
      const double rate = static_cast<double>(batch) / d.step_seconds, moved = d.bytes / d.step_seconds;
      if (human)
        fmt::print(
            "decode {:>2} row{} at depth {:>6}: {:>8.1f} tokens/s, {:.0f} MB and {:.2f} ms a step, {:.1f} GB/s "
            "({:.0f}% of reads)\n",
            batch, batch == 1 ? " " : "s", depth, rate, d.bytes / 1e6, d.step_seconds * 1e3, moved / 1e9,
            100 * moved / bandwidth);
      json["decode"].push_back({{"depth", depth},
                                {"rows", batch},
                                {"tok_s", rate},
                                {"step_ms", d.step_seconds * 1e3},
                                {"bytes_per_token", d.bytes / static_cast<double>(batch)},
                                {"gb_s", moved / 1e9},
                                {"kv_bytes", d.kv},
                                {"kv_charged_bytes", d.kv_charged},
                                {"resident_growth_bytes", d.resident}});
    }
  json["membw_gb_s"] = bandwidth / 1e9;
  json["int8_tops"] = int8 / 1e12;
  json["load_peak_rss_bytes"] = resident_peak;
  json["peak_rss_bytes"] = peak_resident_bytes();
  json["ledger"] = ledger_json(*engine.ledger);
  if (options.json) fmt::print("{}\n", json.dump());
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand("bench", "measure speed, and its share of the machine's limits");
  add_engine_options(*command, options->engine);
  add_kv_option(*command, options->engine);
  add_option(*command, "--prompt", options->prompt, "tokens of the prefill; 0: none")->capture_default_str();
  add_option(*command, "--gen", options->generate, "decode steps; 0: none")->capture_default_str();
  add_option(*command, "--depth", options->depths, "tokens that are in the cache before, e.g. 0,4096,16384")
      ->delimiter(',');
  add_option(*command, "--prefill-depth", options->prefill_depths, "the same for the prefill (default: as --depth)")
      ->delimiter(',');
  add_option(*command, "--batch", options->batches, "rows per decode step, e.g. 1,4,8,16")->delimiter(',');
  add_option(*command, "--repeat", options->repeats, "prefills per depth; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "for programs");
  command->footer("Examples:\n  snug bench smollm2-135m\n  snug bench qwen2.5-coder-0.5b --depth 0,4096,16384 --json");
  command->callback([options] {
    if (options->batches.empty()) options->batches = {1};
    if (options->prefill_depths.empty()) options->prefill_depths = options->depths;
    run_bench(*options);
  });
}

}  // namespace snug
