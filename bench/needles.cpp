// Needles in a long text: needles MODEL.gguf TEXT [--tokens N] [--needles N] [--kv NAME] [--kv-recall BYTES]
//                                                 [--kv-memory BYTES] [--look-ahead] [--alike]
// Sentences with a number are put into the first N tokens of a text, evenly; the number of each is asked for, greedily,
// with the whole cache in bf16 and then as the options say, with --look-ahead also with a guessed token beside each.
// Also says how far the logits are from those of bf16 when its tokens are fed, and how fast they decode.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <random>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/units.hpp"
#include "model/model.hpp"

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

double divergence(std::span<const float> p, std::span<const float> q) {
  const auto log_sum = [](std::span<const float> x) {
    const double top = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float v : x) sum += std::exp(v - top);
    return top + std::log(sum);
  };
  const double p_sum = log_sum(p), q_sum = log_sum(q);
  double total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) total += std::exp(p[i] - p_sum) * (p[i] - p_sum - q[i] + q_sum);
  return total;
}

/// A model that has read the haystack.
class Reader {
public:
  Reader(const std::string& path, const ModelOptions& options, const std::string& text, std::size_t length,
         std::span<const Needle> needles)
      : needles_(needles), model_(Model::load(path, ledger_, pool_, options)) {
    logits_.resize(2 * model_->config().vocab_size);
    haystack_ = model_->new_sequence(length + 1024);
    const auto start = Clock::now();
    feed(*haystack_, make_haystack(model_->tokenizer(), text, length, needles));
    fmt::print("  read at {:.0f} tokens/s, then {} of KV\n", static_cast<double>(haystack_->length()) / since(start),
               format_bytes(ledger_.report().by_tag[static_cast<std::size_t>(Tag::kv)]));
  }

  /// `forced`: the answers whose tokens are fed; null: its own. `look_ahead`: beside each token a guess of the next.
  Result answer(bool look_ahead, const Result* forced) {
    Result result;
    for (std::size_t i = 0; i < needles_.size(); ++i) {
      const auto sequence = haystack_->fork();
      feed(*sequence, model_->tokenizer().encode(needles_[i].question, {.add_special = false}));
      Answer answer;
      std::optional<TokenId> guess;
      const auto start = Clock::now();
      for (std::size_t t = 0; t < kAnswerTokens; ++t) {
        const std::span<const float> now = row(0);
        answer.logits.emplace_back(now.begin(), now.end());
        answer.tokens.push_back(best(now));
        if (forced) {
          const Answer& right = forced->answers[i];
          result.divergence += divergence(right.logits[t], now);
          result.agree += right.tokens[t] == answer.tokens[t];
        }
        step(*sequence, forced ? forced->answers[i].tokens[t] : answer.tokens[t], look_ahead, guess);
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

  std::span<const float> row(std::size_t i) const {
    const std::size_t vocab = model_->config().vocab_size;
    return {logits_.data() + i * vocab, vocab};
  }
  bool says(const Result& result, std::size_t needle) const {
    std::string said;
    for (const TokenId token : result.answers[needle].tokens) said += model_->tokenizer().piece(token);
    return said.find(needles_[needle].number) != said.npos;
  }
  void feed(Sequence& sequence, std::span<const TokenId> tokens) {
    for (std::size_t at = 0; at < tokens.size();) {
      const std::size_t end = std::min(at + model_->most_rows(sequence), tokens.size());
      std::vector<Row> rows;
      for (; at < end; ++at) rows.push_back({tokens[at], &sequence, at + 1 == tokens.size()});
      model_->forward(rows, logits_);
    }
  }
  void step(Sequence& sequence, TokenId token, bool look_ahead, std::optional<TokenId>& guess) {
    const std::size_t stored = sequence.length();
    std::vector<Row> rows{{token, &sequence, true}};
    if (look_ahead && !guess) {
      model_->forward(rows, logits_);
      guess = best(row(0));
      sequence.truncate(stored);
    }
    if (look_ahead) rows.push_back({*guess, &sequence, true});
    model_->forward(rows, logits_);
    if (!look_ahead) return;
    guess = best(row(1));
    if (sequence.truncate(stored + 1) != stored + 1) fail("cannot go back");
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
  bool look_ahead = false, alike = false;
  app.add_option("MODEL", path)->required();
  app.add_option("TEXT", text)->required();
  app.add_option("--tokens", length);
  app.add_option("--needles", count);
  app.add_option("--kv", kv);
  app.add_option("--kv-recall", recall);
  app.add_option("--kv-memory", memory);
  app.add_flag("--look-ahead", look_ahead);
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
  const Result full = whole.answer(false, nullptr);
  const auto speed = [](const Result& r) { return static_cast<double>(r.decoded) / r.seconds; };
  fmt::print("  finds {} of {}, {:.2f} tokens/s\n", whole.found(full, nullptr), count, speed(full));
  fmt::print("{} {}\n", kv, recall.empty() ? memory : recall);
  Reader reader(path, options, text, length, needles);
  std::size_t missed = 0;
  for (const bool ahead : {false, true}) {
    if (ahead && !look_ahead) break;
    const Result own = reader.answer(ahead, nullptr), forced = reader.answer(ahead, &full);
    missed = whole.found(full, nullptr) - whole.found(full, &own);
    fmt::print("  {}finds {} of those of bf16, {:.2f} tokens/s; its tokens fed: KL {:.5f}, {} of {} the same\n",
               ahead ? "looking ahead " : "", whole.found(full, &own), speed(own),
               forced.divergence / static_cast<double>(forced.decoded), forced.agree, forced.decoded);
  }
  return missed > 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "%s\n", e.what()), 2;
}
