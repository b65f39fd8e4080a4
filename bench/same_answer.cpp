// Checks that logits are bit-identical however work is split: same_answer MODEL [PROMPTS] [TOKENS].
// Every prompt is answered greedily by a plain run (2 threads, prefill chunks of 512); the hash of all logits must come
// out the same with 1 thread, with chunks of 1, 7 and 64, with speculation, and in batches of 3 and 16 sequences.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "generate/session.hpp"

namespace {

using namespace snug;

std::vector<std::string> prompts(std::size_t count) {
  const std::vector<std::string> subjects{
      "the sea",        "a small village", "the history of bread", "prime numbers", "a lost key",
      "sorting arrays", "the moon",        "old trains",           "rain",          "a chess game"};
  std::vector<std::string> result;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text = fmt::format("Question {}: tell me about {}.", i, subjects[i % subjects.size()]);
    for (std::size_t j = 0; j < i * 3; ++j)
      text += fmt::format(" Point {} is that {} and {} belong together.", j, subjects[(i + j) % 10],
                          subjects[(i * j) % 10]);
    result.push_back(text + "\nAnswer:");
  }
  return result;
}

struct Answers {
  std::vector<std::uint64_t> hashes;
  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::size_t>
      fed;  ///< how many of the tokens went back in: all but the last when it only ran out of tokens
};

/// One session per prompt.
Answers run_sessions(const std::string& path, unsigned threads, std::size_t chunk, std::size_t speculate,
                     const std::vector<std::string>& texts, std::size_t count) {
  Ledger ledger;
  ThreadPool pool(threads);
  const auto model = Model::load(path, ledger, pool, {.max_rows = chunk});
  Answers answers;
  for (const std::string& text : texts) {
    SamplerOptions greedy;
    greedy.temperature = 0;
    Session session(*model, 8192, greedy);
    session.hash_logits(true);
    session.prompt(model->tokenizer().encode(text));
    GenerateOptions options;
    options.max_tokens = count;
    options.speculate = speculate;
    options.ignore_end = true;
    const GenerateResult result = session.generate(options, nullptr);
    answers.hashes.push_back(session.stats().logits_hash);
    answers.fed.push_back(result.tokens.size() - (result.reason == StopReason::max_tokens ? 1 : 0));
    answers.tokens.push_back(result.tokens);
  }
  return answers;
}

/// The same tokens fed to `batch` sequences at a time; hashes of the same rows.
std::vector<std::uint64_t> run_batches(const std::string& path, std::size_t batch,
                                       const std::vector<std::string>& texts, const Answers& expected) {
  Ledger ledger;
  ThreadPool pool(2);
  const auto model = Model::load(path, ledger, pool);
  const std::size_t vocab = model->config().vocab_size;
  std::vector<std::uint64_t> hashes(texts.size(), 0);
  for (std::size_t from = 0; from < texts.size(); from += batch) {
    const std::size_t n = std::min(batch, texts.size() - from);
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<float> logits(n * vocab);
    for (std::size_t b = 0; b < n; ++b) {
      sequences.push_back(model->new_sequence(8192));
      const std::vector<TokenId> prompt = model->tokenizer().encode(texts[from + b]);
      model->feed(*sequences[b], prompt, std::span(logits).subspan(b * vocab, vocab));
      hashes[from + b] = hash_logits(0, std::span(logits).subspan(b * vocab, vocab));
    }
    for (std::size_t step = 0;; ++step) {
      std::vector<Row> rows;
      std::vector<std::size_t> who;
      for (std::size_t b = 0; b < n; ++b)
        if (step < expected.fed[from + b]) {
          rows.push_back({expected.tokens[from + b][step], sequences[b].get(), true});
          who.push_back(from + b);
        }
      if (rows.empty()) break;
      model->forward(rows, logits);
      for (std::size_t i = 0; i < who.size(); ++i)
        hashes[who[i]] = hash_logits(hashes[who[i]], std::span(logits).subspan(i * vocab, vocab));
    }
  }
  return hashes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: same_answer MODEL [PROMPTS] [TOKENS]\n"), 2;
  const std::string path = argv[1];
  const std::vector<std::string> texts = prompts(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 20);
  const std::size_t count = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 512;
  const Answers plain = run_sessions(path, 2, 512, 0, texts, count);
  std::size_t generated = 0;
  for (const auto& t : plain.tokens) generated += t.size();
  fmt::print("plain run: {} prompts, {} tokens\n", texts.size(), generated);
  int failed = 0;
  const auto compare = [&](const std::string& what, const std::vector<std::uint64_t>& hashes) {
    std::size_t same = 0;
    for (std::size_t i = 0; i < hashes.size(); ++i) same += hashes[i] == plain.hashes[i];
    failed += same != hashes.size();
    fmt::print("{:<24} {} of {} hashes identical\n", what, same, hashes.size());
    std::fflush(stdout);
  };
  compare("1 thread", run_sessions(path, 1, 512, 0, texts, count).hashes);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}})
    compare(fmt::format("prefill chunks of {}", chunk), run_sessions(path, 2, chunk, 0, texts, count).hashes);
  compare("speculation", run_sessions(path, 2, 512, 8, texts, count).hashes);
  for (const std::size_t batch : {std::size_t{3}, std::size_t{16}})
    compare(fmt::format("batches of {}", batch), run_batches(path, batch, texts, plain));
  return failed ? 1 : 0;
}
