// sparsify: MODEL.gguf.ffn, which --sparse-ffn needs.

#include <unistd.h>

#include "base/file.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "format/ffn_file.hpp"
#include "measure/sparsify.hpp"

namespace snug {

namespace {

struct Options {
  EngineOptions engine;
  std::string text;
  SparsifyOptions sparsify;
};

void run_sparsify(Options& o) {
  const std::string text = read_text_file(o.text);
  const Engine engine = load_engine(o.engine);
  const std::vector<TokenId> tokens = engine.model->tokenizer().encode(text);
  if (isatty(STDERR_FILENO))
    o.sparsify.progress = [](const char* step, std::size_t done, std::size_t all) {
      fmt::print(stderr, "\r{:<8} {:>4} of {:>4}{}", step, done, all, done == all ? "\n" : "");
    };
  const std::string path = ffn_path(engine.model->file());
  const SparsifyResult r = sparsify(*engine.model, *engine.ledger, *engine.pool, tokens, o.sparsify, path);
  fmt::print(
      "{}: {} layers, {} of neurons, {} of predictors of rank {}, which account for {:.0f}% of what {} tokens "
      "do to the neurons' inputs\n",
      path, r.layers, format_bytes(r.bundle_bytes), format_bytes(r.predictor_bytes), o.sparsify.rank, 100 * r.explained,
      r.tokens);
}

}  // namespace

void add_sparsify(CLI::App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command =
      app.add_subcommand("sparsify", "write MODEL.ffn, with which `--sparse-ffn` reads only the neurons it needs");
  add_engine_options(*command, o.engine);
  command->add_option("--text", o.text, "a text like those the model will see, a file")->required();
  add_option(*command, "--rank", o.sparsify.rank, "of the predictors that choose neurons, a multiple of 32")
      ->capture_default_str();
  add_option(*command, "--max-tokens", o.sparsify.max_tokens, "of the text that are used")->capture_default_str();
  command->footer(
      "Writes one int8 copy of the feed-forward weights beside the model.\n"
      "Example:\n  snug sparsify qwen2.5-coder-0.5b --text book.txt\n"
      "  snug run qwen2.5-coder-0.5b --sparse-ffn=0.5 --memory 300MiB \"Why is the sky blue?\"");
  command->callback([options] { run_sparsify(*options); });
}

}  // namespace snug
