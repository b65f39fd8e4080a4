// Needles in a long text: needles MODEL.gguf TEXT [--tokens N] [--needles N] [--kv NAME] [--kv-recall BYTES]
//                                                 [--kv-memory BYTES] [--alike]
// Sentences with a number are put into the first N tokens of a text, evenly; the number of each is asked for, greedily,
// with the whole cache in bf16 and then as the options say. Also says how far the logits are from those of bf16 when
// its tokens are fed, and how fast they decode.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/units.hpp"
#include "measure/quality.hpp"

namespace {

using namespace snug;

constexpr std::size_t kAnswerTokens = 10;

struct Needle {
  std::string sentence, question, number;
};

/// Each is of a kind of its own, or with `alike` all of one kind: then each stands in the way of the others.
std::vector<Needle> make_needles(std::size_t count, bool alike) {
  const std::vector<std::pair<std::string, std::string>> kinds{
      {"locker number", "Amsterdam"}, {"telephone number", "Bergen"}, {"house number", "Cordoba"},
      {"ticket number", "Dresden"},   {"passport number", "Esbjerg"}, {"account number", "Florence"},
      {"train number", "Granada"},    {"room number", "Helsinki"},    {"licence number", "Innsbruck"},
      {"serial number", "Jakarta"},   {"invoice number", "Kyoto"},    {"post office box", "Lisbon"},
      {"membership code", "Madrid"},  {"flight number", "Nairobi"},   {"bus number", "Oslo"},
      {"case number", "Porto"},       {"channel number", "Quito"},    {"order number", "Rome"},
      {"policy number", "Seville"},   {"wagon number", "Toledo"}};
  std::mt19937 random(7);
  std::vector<Needle> needles;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [kind, name] = kinds[i % kinds.size()];
    const std::string number = fmt::format("{}", 1000000 + random() % 9000000);
    const std::string begin = fmt::format("The {} of {} is", alike ? "secret number" : kind, name);
    needles.push_back({fmt::format("\n{} {}.\n", begin, number), fmt::format("\n{}", begin), number});
  }
  return needles;
}

std::vector<TokenId> make_haystack(const Tokenizer& tokenizer, const std::string& text, std::size_t length,
                                   std::span<const Needle> needles) {
  const std::vector<TokenId> words = tokenizer.encode(text);
  std::vector<TokenId> tokens;
  std::size_t next = 0;
  for (const TokenId word : words) {
    if (tokens.size() >= length) break;
    if (next < needles.size() && tokens.size() * needles.size() >= length * next + length / 2) {
      const std::vector<TokenId> needle = tokenizer.encode(needles[next++].sentence, {.add_special = false});
      tokens.insert(tokens.end(), needle.begin(), needle.end());
    }
    tokens.push_back(word);
  }
  if (tokens.size() < length) fail("the text has {} tokens only", tokens.size());
  return tokens;
}

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<std::vector<float>> logits;  ///< that each of them was chosen from
};

struct Result {
  std::vector<Answer> answers;
  double seconds = 0;
  std::size_t decoded = 0, agree = 0;
  double divergence = 0;  ///< KL from those that were fed
};

TokenId best(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// A model that has read the haystack.
class Reader {
public:
  Reader(const std::string& path, const ModelOptions& options, const std::string& text, std::size_t length,
         std::span<const Needle> needles)
      : needles_(needles), model_(Model::load(path, ledger_, pool_, options)) {
    logits_.resize(model_->config().vocab_size);
    haystack_ = model_->new_sequence(length + 1024);
    const auto start = Clock::now();
    model_->feed(*haystack_, make_haystack(model_->tokenizer(), text, length, needles), logits_);
    fmt::print("  read at {:.0f} tokens/s, then {} of KV\n", static_cast<double>(haystack_->length()) / since(start),
               format_bytes(ledger_.report().by_tag[static_cast<std::size_t>(Tag::kv)]));
  }

  /// `forced`: the answers whose tokens are fed; null: its own.
  Result answer(const Result* forced) {
    Result result;
    for (std::size_t i = 0; i < needles_.size(); ++i) {
      const auto sequence = haystack_->fork();
      model_->feed(*sequence, model_->tokenizer().encode(needles_[i].question, {.add_special = false}), logits_);
      Answer answer;
      const auto start = Clock::now();
      for (std::size_t t = 0; t < kAnswerTokens; ++t) {
        answer.logits.push_back(logits_);
        answer.tokens.push_back(best(logits_));
        if (forced) {
          const Answer& right = forced->answers[i];
          result.divergence += divergence(right.logits[t], logits_);
          result.agree += right.tokens[t] == answer.tokens[t];
        }
        const TokenId token = forced ? forced->answers[i].tokens[t] : answer.tokens[t];
        model_->feed(*sequence, {&token, 1}, logits_);
        ++result.decoded;
      }
      result.seconds += since(start);
      result.answers.push_back(std::move(answer));
    }
    return result;
  }

  std::size_t found(const Result& result, const Result* also) const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < needles_.size(); ++i) count += says(result, i) && (!also || says(*also, i));
    return count;
  }

private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

  bool says(const Result& result, std::size_t needle) const {
    std::string said;
    for (const TokenId token : result.answers[needle].tokens) said += model_->tokenizer().piece(token);
    return said.find(needles_[needle].number) != said.npos;
  }

  std::span<const Needle> needles_;
  Ledger ledger_;
  ThreadPool pool_;
  std::unique_ptr<Model> model_;
  std::vector<float> logits_;
  std::unique_ptr<Sequence> haystack_;
};

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Needles in a long text");
  std::string path, text, kv = "cq-1", recall, memory;
  std::size_t length = 30000, count = 12;
  bool alike = false;
  app.add_option("MODEL", path)->required();
  app.add_option("TEXT", text)->required();
  app.add_option("--tokens", length);
  app.add_option("--needles", count);
  app.add_option("--kv", kv);
  app.add_option("--kv-recall", recall);
  app.add_option("--kv-memory", memory);
  app.add_flag("--alike", alike);
  CLI11_PARSE(app, argc, argv);
  text = read_text_file(text);
  const std::vector<Needle> needles = make_needles(count, alike);
  ModelOptions options;
  options.kv = parse_kv_choice(kv);
  if (!recall.empty()) options.kv_spill.recall = parse_size(recall, 0);
  if (!memory.empty()) options.kv_spill.limit = parse_size(memory, 0);
  fmt::print("bf16\n");
  Reader whole(path, {}, text, length, needles);
  const Result full = whole.answer(nullptr);
  const auto speed = [](const Result& r) { return static_cast<double>(r.decoded) / r.seconds; };
  const std::size_t found = whole.found(full, nullptr);
  fmt::print("  finds {} of {}, {:.2f} tokens/s\n", found, count, speed(full));
  fmt::print("{} {}\n", kv, recall.empty() ? memory : recall);
  Reader reader(path, options, text, length, needles);
  const Result own = reader.answer(nullptr), forced = reader.answer(&full);
  const std::size_t too = whole.found(full, &own);
  fmt::print("  finds {} of those of bf16, {:.2f} tokens/s; its tokens fed: KL {:.5f}, {} of {} the same\n", too,
             speed(own), forced.divergence / static_cast<double>(forced.decoded), forced.agree, forced.decoded);
  return found > too;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "%s\n", e.what()), 2;
}
