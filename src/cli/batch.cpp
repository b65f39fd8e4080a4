// batch: a file of requests in, a file of answers out, in whatever order is fastest.

#include <unistd.h>

#include <filesystem>

#include "base/error.hpp"
#include "cli/budget_keeper.hpp"
#include "cli/commands.hpp"
#include "cli/control.hpp"
#include "cli/engine.hpp"
#include "cli/run_options.hpp"
#include "format/fingerprint.hpp"
#include "serve/batch.hpp"

namespace snug {

namespace {

struct Options {
  EngineOptions engine;
  std::string in, out, order = "prefix";
  std::size_t max_batch = 0;
  bool json = false, no_pressure = false;
  SchedulerOptions scheduler;
  ApiOptions api;
};

Bytes logits_bytes(const Model& model) {
  return Bytes{model.config().vocab_size} * sizeof(float);
}

/// Requests at work at a time: memory decides how many there are really. Each needs logits and a row of a step beside
/// its keys and values; this is for how many there would be memory if each had two pages to itself.
std::size_t most_requests(const Model& model, const LedgerReport& memory) {
  constexpr std::size_t kOwnTokens = 128;
  const Bytes left = std::max(memory.limit - std::min(memory.used, memory.limit), memory.limit / 8);
  const Bytes each = logits_bytes(model) + model.kv_bytes(kOwnTokens);
  return static_cast<std::size_t>(std::clamp<Bytes>(left / each, 1, model.max_rows()));
}

std::string time_text(double seconds) {
  const auto s = static_cast<std::uint64_t>(seconds + 0.5);
  return s < 60     ? fmt::format("{} s", s)
         : s < 3600 ? fmt::format("{} min", s / 60)
                    : fmt::format("{:.1f} h", seconds / 3600);
}

void show(const BatchProgress& p) {
  if (p.planning) {
    fmt::print(stderr, "\rreading prompts: {} of {}\033[K", p.planned + p.done, p.requests);
  } else {
    fmt::print(stderr, "\r{} of {} done, {:.0f} tokens/s, {} tokens of prompts read and {} shared{}\033[K", p.done,
               p.requests, p.seconds > 0 ? static_cast<double>(p.generated) / p.seconds : 0, p.read, p.shared,
               p.seconds_left ? fmt::format(", {} left", time_text(*p.seconds_left)) : "");
  }
  std::fflush(stderr);
}

/// What results depend on beside the input.
nlohmann::ordered_json belongs_to(const Options& o, const BatchInput& input, const Engine& engine) {
  const SamplerOptions& s = o.api.sampler;
  return {{"input", fmt::format("{:016x}", input.fingerprint())},
          {"model", fmt::format("{:016x}", model_fingerprint(engine.model->file()))},
          {"setting of --kv", o.engine.kv},
          {"context (-c)", o.scheduler.context},
          {"template", o.api.chat_template},
          {"default of sampling", fmt::format("{} {} {} {}", s.temperature, s.top_k, s.top_p, s.min_p)}};
}

nlohmann::ordered_json summary_json(const BatchSummary& s, const Options& o) {
  const BatchProgress& p = s.last;
  return {{"requests", p.requests},
          {"had_answers", s.before},
          {"answered", s.answered},
          {"failed", s.failed},
          {"order", o.order},
          {"max_batch", o.scheduler.max_batch},
          {"seconds", p.seconds},
          {"plan_seconds", s.plan_seconds},
          {"prompt_tokens_read", p.read},
          {"prompt_tokens_shared", p.shared},
          {"generated_tokens", p.generated},
          {"tok_s", p.seconds > 0 ? static_cast<double>(p.generated) / p.seconds : 0},
          {"plan",
           {{"groups", s.plan.groups},
            {"prompt_tokens", s.plan.prompt_tokens},
            {"distinct_tokens", s.plan.distinct_tokens},
            {"group_savings", s.plan.group_savings}}}};
}

void run_batch(Options& o, const CLI::App& command) {
  std::error_code unknown;
  if (std::filesystem::equivalent(o.in, o.out, unknown)) throw UsageError("IN and OUT are the same file");
  const BatchInput input(o.in);
  if (input.size() == 0) fail("{} has no requests", o.in);
  BatchJournal journal(o.out);
  const bool terminal = isatty(STDERR_FILENO);

  const MemoryInfo before = memory_info();
  const Engine engine = load_engine(o.engine, {.context = o.scheduler.context});
  const auto budget = keep_budget(engine, o.engine, o.scheduler.context, !o.no_pressure, before);
  const ControlServer control(*budget, *engine.ledger);
  recommended_sampling(engine.model->file(), command, o.api.sampler);
  journal.begin(belongs_to(o, input, engine), input.size());

  o.scheduler.max_batch = o.max_batch ? o.max_batch : most_requests(*engine.model, engine.ledger->report());
  const std::filesystem::path model_path(o.engine.model);
  o.api.model = model_path.extension() == ".gguf" ? model_path.stem().string() : model_path.filename().string();
  Scheduler scheduler(*engine.model, *engine.ledger, o.scheduler);
  ServedModel model(*engine.model, *engine.ledger, scheduler, o.api);
  Api api(model);
  const CancelOnInterrupt guard;
  const std::string folder = std::filesystem::path(o.out).parent_path().string();
  const auto answer = [&api](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    api.answer(request, reply);
  };
  Batch batch(model, answer, input, journal,
              {.by_prefix = o.order == "prefix",
               .folder = folder.empty() ? "." : folder,
               .cancel = &CancelOnInterrupt::cancelled(),
               .progress = terminal ? show : nullptr});
  const BatchSummary summary = batch.run();
  if (terminal) fmt::print(stderr, "\r\033[K");
  const BatchProgress& p = summary.last;
  if (summary.cancelled)
    fail("interrupted: {} of {} are done; the same command goes on from there", p.done, p.requests);
  if (o.json)
    fmt::print("{}\n", summary_json(summary, o).dump(2));
  else
    fmt::print(
        "{}: {} answered, {} failed, {} had been done before; {:.1f} s, {} tokens of prompts read and {} shared, "
        "{} generated, {:.1f} tokens/s\n",
        o.out, summary.answered, summary.failed, summary.before, p.seconds, p.read, p.shared, p.generated,
        p.seconds > 0 ? static_cast<double>(p.generated) / p.seconds : 0);
}

}  // namespace

void add_batch(CLI::App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command = app.add_subcommand("batch", "answer a file of requests (OpenAI's batch format)");
  add_engine_options(*command, o.engine);
  command->add_option("IN", o.in, "a request a line: custom_id, method, url, body")->required();
  command->add_option("OUT", o.out, "an answer a line, in the same order; a run that was ended goes on from OUT.part")
      ->required();
  add_kv_option(*command, o.engine);
  add_option(*command, "-c,--ctx-size", o.scheduler.context, "context of each request in tokens (default: as trained)");
  add_option(*command, "--max-batch", o.max_batch,
             "requests at work at a time (default: as many as memory has room for)")
      ->check(CLI::Range(1, 4096));
  add_option(*command, "--order", o.order, "prefix: those that begin alike together; input: as they come")
      ->check(CLI::IsMember({"prefix", "input"}))
      ->capture_default_str();
  add_option(*command, "--template", o.api.chat_template, "chat template: a file or a built-in name");
  add_option(*command, "--temp", o.api.sampler.temperature, "where requests say nothing")->capture_default_str();
  add_option(*command, "--top-k", o.api.sampler.top_k, "the same")->capture_default_str();
  add_option(*command, "--top-p", o.api.sampler.top_p, "the same")->capture_default_str();
  add_option(*command, "--min-p", o.api.sampler.min_p, "the same")->capture_default_str();
  add_flag(*command, "--no-pressure", o.no_pressure, "keep the budget when the system is short of memory");
  command->add_flag("--json", o.json, "a summary for programs");
  command->footer(
      "Examples:\n  snug batch qwen2.5-coder-0.5b requests.jsonl answers.jsonl --memory 2GiB\n"
      "  a line: {\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": "
      "{\"messages\": "
      "[...]}}");
  command->callback([options, command] { run_batch(*options, *command); });
}

}  // namespace snug
