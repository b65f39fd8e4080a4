// Holds KV codecs against the slow, plain references of their papers on a model:
// kv_reference MODEL.gguf TEXT [--windows N] [--codecs a,b,...]. Perplexity over the text's first N windows of 2048
// tokens, second halves scored, once with our codec and once with the reference in its place.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.hpp"
#include "base/file.hpp"
#include "kv/references/references.hpp"
#include "measure/quality.hpp"

namespace {

using namespace snug;

struct Text {
  std::string path, text;
  std::size_t windows = 2;
};

double perplexity_with(const Text& on, ModelOptions options) {
  Ledger ledger;
  ThreadPool pool;
  const auto model = Model::load(on.path, ledger, pool, options);
  TextWindows windows;
  windows.context = 2048;
  windows.max_tokens = on.windows * windows.context;
  return perplexity(*model, model->tokenizer().encode(on.text), windows).perplexity;
}

bool wanted(std::string_view names, std::string_view method) {
  const std::string all = fmt::format(",{},", names);
  return names.empty() || all.find(fmt::format(",{},", method)) != all.npos;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3 || argc % 2 == 0)
    return std::fprintf(stderr, "usage: kv_reference MODEL.gguf TEXT [--windows N] [--codecs a,b,...]\n"), 2;
  Text on{argv[1], read_text_file(argv[2])};
  std::string_view names;
  for (int i = 3; i < argc; i += 2) {
    if (!std::strcmp(argv[i], "--windows")) on.windows = std::strtoul(argv[i + 1], nullptr, 10);
    if (!std::strcmp(argv[i], "--codecs")) names = argv[i + 1];
  }
  const double plain = perplexity_with(on, {});
  fmt::print("{:<14} {:>10} {:>10} {:>8} {:>10}\n{:<14} {:>10.4f}\n", "", "codec", "reference", "apart", "of bf16",
             "bf16", plain);
  int failed = 0;
  for (const reference::KvReference& row : reference::kReferences) {
    if (!wanted(names, row.method)) continue;
    ModelOptions coded, referred;
    coded.kv = parse_kv_choice(row.method);
    referred.kv_format = [&](std::shared_ptr<const KvModel> model) {
      return KvFormat{std::string(row.method), row.make(KvSide::keys, model), row.make(KvSide::values, model)};
    };
    const double ours = perplexity_with(on, coded), theirs = perplexity_with(on, referred), apart = ours / theirs - 1;
    fmt::print("{:<14} {:>10.4f} {:>10.4f} {:>+7.2f}% {:>+9.2f}%{}\n", row.method, ours, theirs, 100 * apart,
               100 * (ours / plain - 1), apart > 0.01 ? "  MORE THAN 1%" : "");
    std::fflush(stdout);
    failed += apart > 0.01;
  }
  return failed ? 1 : 0;
} catch (const Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 1;
}
