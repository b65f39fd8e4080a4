// Speed with every way to keep KV, side by side: kv_speed MODEL.gguf TEXT [--tokens N] [--prompt N] [--kv NAME NAME...]
// All models stand in memory at once, each with a sequence of the text's first N tokens, and take turns, decoding
// or, in a fork, reading more of a prompt: what the machine does otherwise meets them alike. Prints medians over the
// rounds and each round's ratio to the first.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>

#include "base/error.hpp"
#include "base/file.hpp"
#include "model/model.hpp"

namespace {

using namespace snug;

struct Contender {
  std::string name;
  std::unique_ptr<Model> model;
  std::unique_ptr<Sequence> sequence;
  std::vector<double> seconds{};  ///< of a token, in each round
};

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Speed with every way to keep KV");
  std::string path, text;
  std::vector<std::string> names{"bf16", "q8", "q4", "kivi-4", "kivi-2"};
  std::size_t length = 16384, prompt = 0, rounds = 15, steps = 8;
  app.add_option("MODEL", path)->required();
  app.add_option("TEXT", text)->required();
  app.add_option("--tokens", length, "tokens of the sequence")->capture_default_str();
  app.add_option("--prompt", prompt, "read so many tokens beyond these in each round, in place of decoding");
  app.add_option("--kv", names, "what to compare; ratios are to the first")->capture_default_str();
  app.add_option("--rounds", rounds)->capture_default_str();
  app.add_option("--steps", steps, "tokens that each decodes in a round")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  Ledger ledger;
  ThreadPool pool;
  std::vector<Contender> all;
  std::vector<TokenId> further;
  for (const std::string& name : names) {
    ModelOptions options;
    options.kv = parse_kv_choice(name);
    Contender c{name, Model::load(path, ledger, pool, options), nullptr};
    std::vector<TokenId> tokens = c.model->tokenizer().encode(read_text_file(text));
    if (tokens.size() < length + prompt) fail("the text has {} tokens only", tokens.size());
    further.assign(tokens.begin() + static_cast<std::ptrdiff_t>(length),
                   tokens.begin() + static_cast<std::ptrdiff_t>(length + prompt));
    tokens.resize(length);
    c.sequence = c.model->new_sequence(length + std::max((rounds + 1) * steps, prompt));
    c.model->feed(*c.sequence, tokens, {});
    all.push_back(std::move(c));
  }
  std::vector<float> logits(all[0].model->config().vocab_size);
  for (std::size_t round = 0; round <= rounds; ++round)
    for (Contender& c : all) {
      const auto fork = prompt > 0 ? c.sequence->fork() : nullptr;
      const auto start = std::chrono::steady_clock::now();
      if (fork) c.model->feed(*fork, further, logits);
      for (std::size_t step = 0; !fork && step < steps; ++step) {
        const Row row{static_cast<TokenId>(1000 + 17 * round + step), c.sequence.get(), true};
        c.model->forward({&row, 1}, logits);
      }
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (round > 0)
        c.seconds.push_back(seconds / static_cast<double>(fork ? prompt : steps));  // the first one warms up
    }
  for (const Contender& c : all) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < rounds; ++i) ratios.push_back(all[0].seconds[i] / c.seconds[i]);
    fmt::print("{:<12} {:7.1f} tokens/s, {:5.2f} times {} (quartiles {:.2f} and {:.2f})\n", c.name,
               1 / quantile(c.seconds, 0.5), quantile(ratios, 0.5), names[0], quantile(ratios, 0.25),
               quantile(ratios, 0.75));
  }
  return 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "%s\n", e.what()), 2;
}
