// bench-serve: how a server stands up to many users.

#include <algorithm>

#include "base/error.hpp"
#include "base/file.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "cli/load_client.hpp"

namespace snug {

namespace {

struct Options {
  LoadTarget target;
  LoadOptions load;
  double deadline = 10;
  std::string svg;
  bool json = false;
};

struct Figures {
  std::vector<double> first, between, whole;  ///< seconds, sorted
  std::size_t answered = 0, failed = 0, tokens = 0, prompt_tokens = 0, in_time = 0;
  double seconds = 0;
  std::string error;  ///< the first
};

double percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5)];
}

Figures figures_of(const std::vector<LoadResult>& results, double deadline) {
  Figures f;
  for (const LoadResult& r : results) {
    f.seconds = std::max(f.seconds, r.end);
    if (!r.error.empty() || r.tokens == 0) {
      ++f.failed;
      if (f.error.empty()) f.error = r.error.empty() ? "an empty answer" : r.error;
      continue;
    }
    ++f.answered;
    f.tokens += r.tokens;
    f.prompt_tokens += r.prompt_tokens;
    // A few tokens may be no whole character.
    f.first.push_back((r.piece_times.empty() ? r.end : r.piece_times.front()) - r.start);
    f.whole.push_back(r.end - r.start);
    if (f.first.back() <= deadline) ++f.in_time;
    for (std::size_t i = 1; i < r.piece_times.size(); ++i) f.between.push_back(r.piece_times[i] - r.piece_times[i - 1]);
  }
  for (auto* times : {&f.first, &f.between, &f.whole}) std::sort(times->begin(), times->end());
  return f;
}

nlohmann::ordered_json percentiles_json(const std::vector<double>& sorted) {
  return {{"p50", percentile(sorted, 0.5)},
          {"p90", percentile(sorted, 0.9)},
          {"p95", percentile(sorted, 0.95)},
          {"p99", percentile(sorted, 0.99)},
          {"max", percentile(sorted, 1)}};
}

/// Shares of requests (y) that had their first token, and their whole answer, after so many seconds (x).
std::string svg_of(const Figures& f) {
  constexpr double kLeft = 50, kTop = 30, kWidth = 560, kHeight = 260;
  const double most = std::max(1e-3, percentile(f.whole, 1));
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 640 340' font-family='sans-serif' font-size='12'>"
      "<rect width='640' height='340' fill='white'/><path d='M{0} {1}V{2}H{3}' fill='none' stroke='#333'/>",
      kLeft, kTop, kTop + kHeight, kLeft + kWidth);
  for (int i = 0; i <= 4; ++i) {
    svg += fmt::format("<text x='{:.0f}' y='{:.0f}' text-anchor='middle'>{:.2g} s</text>", kLeft + kWidth * i / 4,
                       kTop + kHeight + 18, most * i / 4);
    svg += fmt::format("<text x='{:.0f}' y='{:.0f}' text-anchor='end'>{}%</text>", kLeft - 6,
                       kTop + kHeight - kHeight * i / 4 + 4, 25 * i);
  }
  const auto curve = [&](const std::vector<double>& sorted, const char* colour, const char* name, double y) {
    std::string points;
    for (std::size_t i = 0; i < sorted.size(); ++i)
      points += fmt::format("{:.1f},{:.1f} ", kLeft + kWidth * sorted[i] / most,
                            kTop + kHeight - kHeight * static_cast<double>(i + 1) / static_cast<double>(sorted.size()));
    svg += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='2'/>", points, colour);
    svg += fmt::format("<text x='{:.0f}' y='{:.0f}' fill='{}'>{}</text>", kLeft + 10, y, colour, name);
  };
  curve(f.first, "#0072b2", "first token", 20);
  curve(f.whole, "#d55e00", "whole answer", 36);
  return svg + "</svg>\n";
}

void run_bench_serve(Options& o) {
  o.target.seed = o.load.seed;
  const auto results = run_load(o.target, make_load(o.load));
  const Figures f = figures_of(results, o.deadline);
  if (!o.svg.empty())
    write_atomically(o.svg, [svg = svg_of(f)](const auto& append) { append(std::as_bytes(std::span(svg))); });
  const double rate = f.seconds > 0 ? static_cast<double>(f.tokens) / f.seconds : 0;
  if (o.json) {
    const nlohmann::ordered_json json = {
        {"kind", o.load.kind},
        {"requests", results.size()},
        {"answered", f.answered},
        {"failed", f.failed},
        {"error", f.error},
        {"seconds", f.seconds},
        {"prompt_tokens", f.prompt_tokens},
        {"tokens", f.tokens},
        {"tok_s", rate},
        {"deadline_seconds", o.deadline},
        {"goodput_requests_s", static_cast<double>(f.in_time) / std::max(f.seconds, 1e-9)},
        {"first_token_seconds", percentiles_json(f.first)},
        {"between_tokens_seconds", percentiles_json(f.between)},
        {"answer_seconds", percentiles_json(f.whole)}};
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{} answered, {} failed, {:.1f} s; {} tokens of prompts, {} of answers, {:.1f} tokens/s\n", f.answered,
               f.failed, f.seconds, f.prompt_tokens, f.tokens, rate);
    fmt::print("{} of {} had their first token within {} s\n", f.in_time, f.answered + f.failed, o.deadline);
    const auto line = [](const char* name, const std::vector<double>& t) {
      fmt::print("{:<15} p50 {:8.3f} s   p90 {:8.3f}   p95 {:8.3f}   p99 {:8.3f}   max {:8.3f}\n", name,
                 percentile(t, 0.5), percentile(t, 0.9), percentile(t, 0.95), percentile(t, 0.99), percentile(t, 1));
    };
    line("first token", f.first);
    line("between tokens", f.between);
    line("whole answer", f.whole);
  }
  if (f.failed > 0) fail("{} requests failed, e.g.: {}", f.failed, f.error);
}

}  // namespace

void add_bench_serve(CLI::App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command = app.add_subcommand("bench-serve", "measure a server of OpenAI's API under load");
  command->add_option("URL", o.target.url, "its address, up to and with /v1")->capture_default_str();
  add_option(*command, "--model", o.target.model, "name of the model to ask for")->capture_default_str();
  add_option(*command, "--key", o.target.key, "API key");
  command->add_option("--kind", o.load.kind, "shared-prefix, own-prefix, multi-turn or mixed-lengths")
      ->check(CLI::IsMember(load_kinds()))
      ->capture_default_str();
  command->add_option("--users", o.load.conversations, "conversations")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("--rate", o.load.rate, "of them begin per second, at random; 0: all at once")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command
      ->add_option("--prompt-words", o.load.prompt_words,
                   "of the system prompt, of all turns, or of the longest prompt")
      ->capture_default_str();
  command->add_option("--ask", o.load.ask, "in front of each question, which is of random words");
  command->add_option("--max-tokens", o.load.max_tokens, "of an answer")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--turns", o.load.turns, "of a conversation")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--think", o.load.think_seconds, "seconds between them, on average")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command->add_option("--stop", o.target.stop, "text that ends an answer (may be given several times)");
  command->add_flag("--ignore-eos", o.target.ignore_end, "ask for answers of full length");
  command->add_option("--temperature", o.target.temperature, "above 0 answers are drawn, and differ in length")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  command->add_option("--seed", o.load.seed, "the same seed asks the same")->capture_default_str();
  command->add_option("--deadline", o.deadline, "seconds to the first token that count as in time")
      ->capture_default_str();
  command->add_option("--timeout", o.target.timeout_seconds, "seconds after which an answer has failed")
      ->capture_default_str();
  command->add_option("--svg", o.svg, "draw the distribution of times into this file");
  command->add_flag("--json", o.json, "for programs");
  command->footer(
      "Examples:\n  snug bench-serve --users 16 --max-tokens 48\n"
      "  snug bench-serve http://127.0.0.1:8000/v1 --kind multi-turn --users 30 --rate 2 --svg times.svg");
  command->callback([options] { run_bench_serve(*options); });
}

}  // namespace snug
