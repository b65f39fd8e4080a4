// run: one answer, or a chat when there is no prompt and a terminal.

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <random>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/memory_info.hpp"
#include "cli/commands.hpp"
#include "cli/run_options.hpp"
#include "generate/kv_folder.hpp"
#include "measure/machine_limits.hpp"
#include "plan/routing_profile.hpp"

namespace snug {

namespace {

std::atomic<bool> interrupted{false};

/// The prompt: the argument, then -f FILE, then what is piped in.
std::string gather_prompt(const RunOptions& options) {
  std::string text = options.prompt.empty() ? options.prompt_flag : options.prompt;
  const auto append = [&text](const std::string& more) { text += (text.empty() || more.empty() ? "" : "\n\n") + more; };
  if (!options.file.empty()) append(read_text_file(options.file));
  if (!isatty(STDIN_FILENO)) append(std::string(std::istreambuf_iterator<char>(std::cin), {}));
  return text;
}

/// Tokens whose text has one of these characters.
std::unordered_set<TokenId> tokens_with(const Tokenizer& tokenizer, const char* characters) {
  std::unordered_set<TokenId> found;
  for (TokenId id = 0; id < static_cast<TokenId>(tokenizer.size()); ++id)
    if (tokenizer.piece(id).find_first_of(characters) != std::string::npos) found.insert(id);
  return found;
}

std::optional<Foresight> foresee(const Engine& engine, std::size_t context) {
  if (!engine.machine) return std::nullopt;
  MemoryPlan plan = engine.model->plan(engine.ledger->report().limit, context);
  if (const auto routing = load_routing_profile(engine.model->file())) apply(*routing, plan);
  return Foresight{plan, predict(plan, *engine.machine)};
}

Run start(RunOptions& options, const CLI::App& command) {
  Run run;
  const MemoryInfo before = memory_info();
  // A plan is of passes that use all weights.
  options.engine.foresee = (options.json || options.stats) && options.engine.sparse_share == 0;
  run.engine = load_engine(options.engine, {.context = options.context});
  run.budget = keep_budget(run.engine, options.engine, options.context, !options.no_pressure, before);
  run.control = std::make_unique<ControlServer>(*run.budget, *run.engine.ledger);
  const Model& model = *run.engine.model;
  recommended_sampling(model.file(), command, options.sampler);
  const std::size_t trained = model.config().trained_context, context = options.context ? options.context : trained;
  if (context > trained)
    fmt::print(stderr, "note: the model was trained for {} tokens of context, not {}\n", trained, context);
  run.foresight = foresee(run.engine, context);
  if (options.sampler.dry_multiplier > 0) options.sampler.dry_breakers = tokens_with(model.tokenizer(), "\n:\"*");
  run.session = std::make_unique<Session>(*run.engine.model, context, options.sampler);
  const int thinking = options.thinking == "on" ? 1 : options.thinking == "off" ? 0 : -1;
  run.conversation = std::make_unique<Conversation>(model, options.chat_template, ChatTemplateOptions{true, thinking});
  if (!options.system.empty()) run.conversation->add("system", options.system);
  if (!run.conversation->has_template() && !options.raw) {
    fmt::print(stderr,
               "note: {} has no chat template, so text is completed as it stands (--template NAME chooses one)\n",
               run.engine.name);
    options.raw = true;
  }
  return run;
}

std::string_view reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::end_of_text:
      return "end_of_text";
    case StopReason::stop_string:
      return "stop";
    case StopReason::max_tokens:
      return "length";
    case StopReason::context_full:
      return "context_full";
    case StopReason::cancelled:
      return "cancelled";
  }
  return "";
}

double rate(std::size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

nlohmann::ordered_json experts_json(const Model& model) {
  const ExpertStats e = model.expert_stats();
  return {{"hits", e.hits},
          {"misses", e.misses},
          {"preloads", e.preloads},
          {"preloads_used", e.preloads_used},
          {"bytes_read", e.bytes_read}};
}

nlohmann::ordered_json streaming_json(const Model& model) {
  const StreamStats s = model.stream_stats();
  return {{"bytes_read", s.bytes_read}, {"reads", s.reads}, {"late", s.late}, {"restarts", s.restarts}};
}

nlohmann::ordered_json pressure_json(const Run& run) {
  const BudgetKeeper::Counts counts = run.budget->counts();
  return {{"shrunk", counts.shrunk}, {"grown", counts.grown}, {"budget", run.engine.ledger->report().limit}};
}

nlohmann::ordered_json sparse_json(const Model& model) {
  const SparseFfnStats s = model.sparse_ffn_stats();
  return {{"tokens", s.tokens},
          {"chosen", s.neurons.chosen},
          {"hits", s.neurons.hits},
          {"reads", s.neurons.reads},
          {"bytes_read", s.neurons.bytes_read}};
}

void print_json(const Run& run, const GenerateResult& result) {
  const SessionStats& s = run.session->stats();
  nlohmann::ordered_json json = {{"prompt_tokens", s.prompt_tokens},
                                 {"loaded_tokens", s.loaded_tokens},
                                 {"generated_tokens", s.generated_tokens},
                                 {"text", result.text},
                                 {"token_ids", result.tokens},
                                 {"finish_reason", reason_name(result.reason)},
                                 {"prefill_tok_s", rate(s.prompt_tokens, s.prompt_seconds)},
                                 {"decode_tok_s", rate(s.generated_tokens, s.generate_seconds)},
                                 {"logits_hash", fmt::format("{:016x}", s.logits_hash)},
                                 {"peak_rss_bytes", peak_resident_bytes()},
                                 {"ledger", ledger_json(*run.engine.ledger)},
                                 {"pressure", pressure_json(run)},
                                 {"streaming", streaming_json(*run.engine.model)},
                                 {"experts", experts_json(*run.engine.model)},
                                 {"sparse_ffn", sparse_json(*run.engine.model)}};
  if (run.foresight) json["plan"] = plan_json(run.foresight->plan, run.foresight->prediction);
  fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void answer_once(Run& run, const RunOptions& options, const std::string& prompt) {
  std::vector<TokenId> tokens;
  if (options.raw) {
    tokens = run.engine.model->tokenizer().encode(prompt, {.add_special = true, .parse_special = false});
  } else {
    run.conversation->add("user", prompt);
    tokens = run.conversation->prompt();
  }
  run.session->hash_logits(options.json);
  if (!options.kv_folder.empty()) load_from_folder(options.kv_folder, *run.engine.model, tokens, *run.session);
  run.session->prompt(tokens);
  const CancelOnInterrupt guard;
  GenerateOptions generate = options.generate;
  generate.cancel = &CancelOnInterrupt::cancelled();
  const GenerateResult result = run.session->generate(generate, [&](std::string_view text) {
    if (options.json) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  if (options.json) {
    print_json(run, result);
  } else {
    std::fputs("\n", stdout);
    if (result.reason == StopReason::context_full)
      fmt::print(stderr, "note: stopped because the context of {} tokens is full (-c N gives more)\n",
                 run.session->context());
  }
  if (std::ferror(stdout)) fail<IoError>("cannot write the answer");
  if (!options.kv_folder.empty()) save_to_folder(options.kv_folder, *run.engine.model, *run.session);
  if (options.stats) print_stats(run);
}

}  // namespace

CancelOnInterrupt::CancelOnInterrupt() {
  interrupted = false;
  struct sigaction action{};
  action.sa_handler = [](int) { interrupted = true; };
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_);
}
CancelOnInterrupt::~CancelOnInterrupt() {
  sigaction(SIGINT, &previous_, nullptr);
}
const std::atomic<bool>& CancelOnInterrupt::cancelled() {
  return interrupted;
}

void print_stats(const Run& run) {
  const BudgetKeeper::Counts pressure = run.budget->counts();
  const auto held = run.budget->hold();
  const SessionStats& s = run.session->stats();
  const LedgerReport report = run.engine.ledger->report();
  const Bytes free = report.limit > report.used ? report.limit - report.used : 0;
  const Bytes resident = peak_resident_bytes();
  fmt::print(stderr, "\nprompt    {:>6} tokens  {:>8.1f} tokens/s\n", s.prompt_tokens,
             rate(s.prompt_tokens, s.prompt_seconds));
  fmt::print(stderr, "answer    {:>6} tokens  {:>8.1f} tokens/s\n", s.generated_tokens,
             rate(s.generated_tokens, s.generate_seconds));
  if (const auto& f = run.foresight)
    fmt::print(stderr, "foreseen  prompt {:.1f} tokens/s (of {} tokens), answer {:.1f} tokens/s, memory {}\n",
               f->prediction.prefill_tok_s, f->plan.max_rows, f->prediction.decode_tok_s, format_bytes(f->plan.used()));
  if (s.generated_tokens > 0) {
    const double moved = static_cast<double>(s.generate_bytes) / s.generate_seconds;
    fmt::print(stderr, "read      {} per token, {:.1f} GB/s", format_bytes(s.generate_bytes / s.generated_tokens),
               moved / 1e9);
    if (constexpr Bytes kProbe = 256 * kMiB; free > kProbe)
      fmt::print(stderr, ", {:.0f}% of this machine's memory bandwidth",
                 100 * moved / measure_read_bandwidth(*run.engine.pool, *run.engine.ledger, kProbe, 3));
    fmt::print(stderr, "\n");
  }
  if (const ExpertStats e = run.engine.model->expert_stats(); e.hits + e.misses > 0)
    fmt::print(stderr, "experts   {:.0f}% found in memory, {} read ({} of {} guesses were right)\n",
               100 * e.hit_ratio(), format_bytes(e.bytes_read), e.preloads_used, e.preloads);
  if (pressure.shrunk + pressure.grown > 0)
    fmt::print(stderr, "pressure  the budget shrank {} times and grew {} times\n", pressure.shrunk, pressure.grown);
  if (const SparseFfnStats f = run.engine.model->sparse_ffn_stats(); f.tokens > 0)
    fmt::print(stderr, "neurons   {:.0f}% found in memory, {} read per token in {} reads\n",
               100 * f.neurons.hit_ratio(), format_bytes(f.neurons.bytes_read / f.tokens), f.neurons.reads / f.tokens);
  fmt::print(stderr, "memory    ");
  for (std::size_t i = 0; i < kTagCount; ++i)
    if (report.by_tag[i]) fmt::print(stderr, "{} {}, ", tag_name(static_cast<Tag>(i)), format_bytes(report.by_tag[i]));
  fmt::print(stderr, "peak {} of {}; resident {}\n", format_bytes(report.peak), format_bytes(report.limit),
             format_bytes(resident));
}

void add_run(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  RunOptions& o = *options;
  CLI::App* command = app.add_subcommand("run", "generate text, or chat when there is no prompt");
  add_engine_options(*command, o.engine);
  add_sparse_option(*command, o.engine);
  add_kv_option(*command, o.engine);
  command->add_option("PROMPT", o.prompt, "the question; standard input and -f FILE are appended");
  command->add_option("-p,--prompt", o.prompt_flag, "the same as PROMPT");
  command->add_option("-f,--file", o.file, "read the prompt from a file");
  add_option(*command, "--system", o.system, "system message");
  add_option(*command, "-n,--max-tokens", o.max_tokens,
             "most tokens of the answer (default: until the end or a full context)");
  add_option(*command, "-c,--ctx-size", o.context,
             "context in tokens (default: as trained; memory is used as it fills)");
  add_option(
      *command, "--kv-dir", o.kv_folder,
      "folder of saved sessions: a prompt that begins as one of them goes on from there, and is saved at the end");
  command->add_flag("--raw", o.raw, "complete the text, without the chat template");
  add_option(*command, "--template", o.chat_template, "chat template: a file or a built-in name");
  add_option(*command, "--thinking", o.thinking, "let a thinking model think")->check(CLI::IsMember({"on", "off"}));
  add_option(*command, "--temp", o.sampler.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0f, 100.0f))
      ->capture_default_str();
  add_option(*command, "--top-k", o.sampler.top_k, "draw from the k likeliest; 0: off")->capture_default_str();
  add_option(*command, "--top-p", o.sampler.top_p, "draw from the likeliest that add up to p; 1: off")
      ->check(CLI::Range(0.0f, 1.0f))
      ->capture_default_str();
  add_option(*command, "--min-p", o.sampler.min_p, "drop what is less than p times as likely as the likeliest; 0: off")
      ->check(CLI::Range(0.0f, 1.0f))
      ->capture_default_str();
  add_option(*command, "--typical", o.sampler.typical_p, "locally typical sampling; 1: off")
      ->check(CLI::Range(0.0f, 1.0f))
      ->capture_default_str();
  add_option(*command, "--repeat-penalty", o.sampler.repetition_penalty, "divides logits of recent tokens; 1: off")
      ->check(CLI::Range(0.01f, 100.0f))
      ->capture_default_str();
  add_option(*command, "--presence-penalty", o.sampler.presence_penalty, "subtracted from recent tokens")
      ->capture_default_str();
  add_option(*command, "--frequency-penalty", o.sampler.frequency_penalty, "subtracted per occurrence of recent tokens")
      ->capture_default_str();
  add_option(*command, "--repeat-last-n", o.sampler.penalty_window, "tokens that the penalties look back on")
      ->capture_default_str();
  add_option(*command, "--dry-multiplier", o.sampler.dry_multiplier, "DRY penalty on repeating sequences; 0: off")
      ->capture_default_str();
  add_option(*command, "--dry-base", o.sampler.dry_base, "growth of the DRY penalty per token")->capture_default_str();
  add_option(*command, "--dry-allowed-length", o.sampler.dry_allowed_length, "repeats up to this length are free")
      ->capture_default_str();
  add_option(*command, "--seed", o.sampler.seed, "the same seed gives the same answer (default: random)");
  command->add_option("--stop", o.generate.stop, "end before this text (may be given several times)");
  command->add_flag("--ignore-eos", o.generate.ignore_end, "go on after the end of the text");
  add_option(*command, "--speculate", o.generate.speculate,
             "draft so many tokens by prompt look-up; never changes the answer")
      ->check(CLI::Range(0, 64));
  add_flag(*command, "--no-pressure", o.no_pressure,
           "keep the budget when the system is short of memory (default: shrink, and grow again when it is over)");
  command->add_flag("--stats", o.stats, "end with speeds, bytes and memory");
  command->add_flag("--json", o.json, "one JSON object instead of text");
  command->footer(
      "Examples:\n  snug run smollm2-135m \"Why is the sky blue?\"\n  snug run qwen2.5-coder-0.5b -f code.py \"What "
      "does this do?\"\n"
      "  git diff | snug run qwen2.5-coder-0.5b \"Write a commit message\" --temp 0\n"
      "  snug run qwen2.5-coder-0.5b --sparse-ffn=0.5 \"Hello\"  (after snug sparsify)\n"
      "  snug run qwen2.5-coder-0.5b --kv-dir ~/.cache/snug-kv -f book.txt \"Who is Ann?\"  (later questions need no "
      "prefill)\n  snug run smollm2-135m        "
      "(chat)");
  command->callback([options, command] {
    RunOptions& o = *options;
    if (o.engine.sparse_share > 0 && o.generate.speculate > 0)
      fail<UsageError>("--speculate checks drafts with all neurons: it does not go with --sparse-ffn");
    if (command->count("--seed") == 0) o.sampler.seed = std::random_device{}();
    o.generate.max_tokens = o.max_tokens < 0 ? SIZE_MAX : static_cast<std::size_t>(o.max_tokens);
    const std::string prompt = gather_prompt(o);
    const bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (prompt.empty() && (!terminal || o.raw || o.json))
      fail<UsageError>("no prompt: give it as an argument, with -f FILE or on standard input");
    Run run = start(o, *command);
    if (prompt.empty())
      chat(run, o);
    else
      answer_once(run, o, prompt);
  });
}

}  // namespace snug
