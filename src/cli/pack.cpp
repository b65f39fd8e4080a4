// pack: a kernel-ready copy of a model's matrices beside it, which streaming reads faster.

#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "base/error.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "cli/model_store.hpp"
#include "format/fingerprint.hpp"
#include "format/pack.hpp"

namespace snug {

namespace {

struct PackOptions {
  std::string model;
  unsigned threads = 0;
  bool check = false;
};

void write(const std::string& path, const Model& model) {
  const bool terminal = isatty(STDERR_FILENO);
  const auto start = std::chrono::steady_clock::now();
  Bytes shown = 0;
  model.write_pack(path, [&](Bytes done, Bytes all) {
    if (!terminal || (done - shown < 64 * kMiB && done != all)) return;
    shown = done;
    fmt::print(stderr, "\r{} of {} ", format_bytes(done), format_bytes(all));
  });
  if (terminal) fmt::print(stderr, "\r\033[K");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{}: {} in {:.1f} s\n", path, format_bytes(std::filesystem::file_size(path)), seconds);
}

void check(const std::string& path, const Model& model) {
  const PackFile pack = PackFile::open(path);
  if (pack.model() != model_fingerprint(model.file())) fail<FormatError>("{} was made of another model", path);
  pack.verify();
  fmt::print("{}: {} tensors, all as they were written\n", path, pack.tensors().size());
}

}  // namespace

void add_pack(CLI::App& app) {
  auto options = std::make_shared<PackOptions>();
  PackOptions& o = *options;
  CLI::App* command = app.add_subcommand("pack", "write a copy of the weights that a small budget streams faster");
  command
      ->add_option("MODEL", o.model,
                   "a name (see `snug list`), a path, hf:owner/repo[:QUANT] or hf:owner/repo/file.gguf")
      ->required();
  add_option(*command, "-t,--threads", o.threads, "compute threads (default: one per CPU)")
      ->check(CLI::Range(1u, 1024u));
  command->add_flag("--check", o.check, "read the copy that is there and compare its checksums");
  command->footer(
      "The copy lies beside the model (MODEL.gguf.snug, about as large) and is used from then on; `snug rm` removes\n"
      "both. Answers do not change.\n\nExamples:\n  snug pack qwen2.5-coder-0.5b\n  snug pack model.gguf --check");
  command->callback([options] {
    const std::string path = find_or_fetch_model(options->model);
    ThreadPool pool(options->threads);
    Ledger ledger(Ledger::kUnlimited);
    const auto model = Model::load(path, ledger, pool, {.use_pack = false, .load_weights = false});
    const std::string pack = pack_path(model->file().path());
    options->check ? check(pack, *model) : write(pack, *model);
  });
}

}  // namespace snug
