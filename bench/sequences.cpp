// The memory of several long sequences: sequences MODEL.gguf TEXT [--tokens N] [--count N] [--kv NAME]
// Reads the first N tokens of a text once, saves the sequence, loads it as often as is said (copies that share nothing)
// and decodes all of them together. Prints what the ledger holds, the process' memory then and at its peak.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <filesystem>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/memory_info.hpp"
#include "base/units.hpp"
#include "model/model.hpp"

int main(int argc, char** argv) try {
  using namespace snug;
  CLI::App app("The memory of several long sequences");
  std::string path, text, kv = "bf16", folder = "/var/tmp";
  std::size_t length = 32000, count = 4, steps = 16;
  app.add_option("MODEL", path)->required();
  app.add_option("TEXT", text)->required();
  app.add_option("--tokens", length);
  app.add_option("--count", count);
  app.add_option("--kv", kv);
  app.add_option("--folder", folder, "for the saved sequence");
  CLI11_PARSE(app, argc, argv);
  Ledger ledger;
  ThreadPool pool;
  ModelOptions options;
  options.kv = parse_kv_choice(kv);
  const auto model = Model::load(path, ledger, pool, options);
  std::vector<TokenId> tokens = model->tokenizer().encode(read_text_file(text));
  if (tokens.size() < length) fail("the text has {} tokens only", tokens.size());
  tokens.resize(length);
  std::vector<float> logits(count * model->config().vocab_size);
  const std::string file = folder + "/snug-sequence.kv";
  {
    const auto sequence = model->new_sequence(length + 64);
    model->feed(*sequence, tokens, {});
    model->save(*sequence, tokens, file);
  }
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (std::size_t i = 0; i < count; ++i) sequences.push_back(model->load_sequence(file, length + 64, tokens));
  std::filesystem::remove(file);
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i < count; ++i)
      rows.push_back({static_cast<TokenId>(1000 + 17 * i + step), sequences[i].get(), true});
    model->forward(rows, logits);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const LedgerReport report = ledger.report();
  fmt::print("{}: {} x {} tokens: KV {:.1f} MB, resident {:.1f} MB, peak {:.1f} MB, {:.1f} tokens/s together\n", kv,
             count, length, static_cast<double>(report.by_tag[static_cast<std::size_t>(Tag::kv)]) / 1e6,
             static_cast<double>(resident_bytes()) / 1e6, static_cast<double>(peak_resident_bytes()) / 1e6,
             static_cast<double>(count * steps) / seconds);
  return 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "%s\n", e.what()), 2;
}
