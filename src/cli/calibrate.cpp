// calibrate: what KV codecs learn of a model, written beside it.

#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "format/fingerprint.hpp"
#include "measure/kv_samples.hpp"

namespace snug {

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  EngineOptions engine;
  std::string text, kv;
  KvSampleOptions samples;
  bool json = false;
};

void show_progress(const std::string& step, std::size_t done, std::size_t all) {
  fmt::print(stderr, "\r{:<20} {:>4} of {:>4}{}", step, done, all, done == all ? "\n" : "");
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Those of the choice that learn.
std::vector<const KvMethod*> learners(const std::string& text) {
  std::vector<const KvMethod*> all;
  for (const std::string& name : parse_kv_choice(text).methods())
    if (const KvMethod& method = find_kv_method(name); method.learn) all.push_back(&method);
  if (all.empty()) fail<UsageError>("--kv {} learns nothing: it can be used as it is", text);
  return all;
}

void run_calibrate(Options& o) {
  const std::vector<const KvMethod*> methods = learners(o.kv);
  const std::string text = read_text_file(o.text);
  const Engine engine = load_engine(o.engine);
  const bool watched = isatty(STDERR_FILENO);
  if (watched) o.samples.progress = [](std::size_t done, std::size_t all) { show_progress("reading", done, all); };
  const auto start = Clock::now();
  const KvSampleSet set =
      sample_kv(*engine.model, *engine.ledger, *engine.pool, engine.model->tokenizer().encode(text), o.samples);
  const double reading = seconds_since(start);
  const GgufFile& file = engine.model->file();
  const auto model = engine.model->config().kv_model(file.path(), model_fingerprint(file));
  nlohmann::json report = nlohmann::json::array();
  for (const KvMethod* method : methods) {
    const auto began = Clock::now();
    KvLearning from{*model, set.samples, *engine.pool};
    if (watched)
      from.progress = [&](std::size_t done, std::size_t all) {
        show_progress(fmt::format("learning {}", method->name), done, all);
      };
    const KvTables tables = method->learn(from);
    const std::string path = kv_tables_path(*model, method->name);
    tables.write(path, model->fingerprint);
    const double learning = seconds_since(began);
    report.push_back({{"path", path},
                      {"codec", method->name},
                      {"bytes", tables.bytes()},
                      {"tokens", set.samples.tokens},
                      {"reading_seconds", reading},
                      {"learning_seconds", learning}});
    if (!o.json)
      fmt::print("{}: {} learned from {} tokens in {:.1f} s ({:.1f} s of it for reading the text)\n", path,
                 format_bytes(tables.bytes()), set.samples.tokens, reading + learning, reading);
  }
  if (o.json) fmt::print("{}\n", report.dump(2));
}

}  // namespace

void add_calibrate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command = app.add_subcommand("calibrate", "learn what a KV codec needs, into MODEL.gguf.kv-CODEC");
  add_engine_options(*command, o.engine);
  command->add_option("--text", o.text, "a text like those the model will see, a file")->required();
  std::string names;
  for (const KvMethod& method : kv_methods())
    if (method.learn) names += fmt::format("{}{}", names.empty() ? "" : ", ", method.name);
  command->add_option("--kv", o.kv, fmt::format("CODEC or KEYS/VALUES, one of which learns: {}", names))->required();
  add_option(*command, "--context", o.samples.context, "tokens of a window of the text")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  add_option(*command, "--max-tokens", o.samples.max_tokens, "of the text that are used")->capture_default_str();
  command->add_flag("--json", o.json, "machine-readable results");
  command->footer(
      "Example:\n  snug calibrate qwen2.5-coder-0.5b --text book.txt --kv cq-2\n"
      "  snug run qwen2.5-coder-0.5b --kv cq-2 \"Why is the sky blue?\"");
  command->callback([options] { run_calibrate(*options); });
}

}  // namespace snug
