#include "serve/load_trace.hpp"

#include <algorithm>
#include <cmath>
#include <random>

namespace snug {

namespace {

constexpr std::size_t kQuestionWords = 20;

constexpr std::string_view kWords[] = {"the",   "server", "memory", "keeps",  "every",  "page",  "until",   "another",
                                       "needs", "room",   "then",   "oldest", "one",    "goes",  "away",    "and",
                                       "its",   "tokens", "must",   "be",     "read",   "again", "which",   "costs",
                                       "time",  "so",     "a",      "good",   "plan",   "looks", "ahead",   "of",
                                       "what",  "will",   "come",   "next",   "river",  "house", "morning", "green",
                                       "small", "letter", "under",  "bridge", "winter", "light", "between", "seven"};

class Writer {
public:
  explicit Writer(std::uint64_t seed) : random_(seed) {}
  // By hand: distributions of the standard library differ from one to the other.
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  double exponential(double mean) { return -mean * std::log1p(-uniform()); }
  std::string text(std::size_t words) {
    std::string text;
    for (std::size_t i = 0; i < words; ++i) {
      text += kWords[static_cast<std::size_t>(uniform() * static_cast<double>(std::size(kWords)))];
      text += (i + 1) % 12 == 0 ? ". " : " ";
    }
    return text;
  }
  /// From 1/32 of `most` to all of it, evenly by its logarithm.
  std::size_t some_of(std::size_t most) {
    return std::max<std::size_t>(1, static_cast<std::size_t>(static_cast<double>(most) * std::exp2(-5 * uniform())));
  }

private:
  std::mt19937_64 random_;
};

}  // namespace

std::vector<std::string> load_kinds() {
  return {"shared-prefix", "own-prefix", "multi-turn", "mixed-lengths"};
}

std::vector<LoadConversation> make_load(const LoadOptions& o) {
  Writer writer(o.seed);
  const std::string shared = o.kind == "shared-prefix" ? writer.text(o.prompt_words) : std::string();
  std::vector<LoadConversation> load;
  double at = 0;
  for (std::size_t i = 0; i < o.conversations; ++i) {
    LoadConversation c{at, o.kind == "own-prefix" ? writer.text(o.prompt_words) : shared, {}};
    const std::string name = "Question " + std::to_string(i + 1) + ": " + o.ask + (o.ask.empty() ? "" : " ");
    if (o.kind == "mixed-lengths") {
      c.turns.push_back({name + writer.text(writer.some_of(o.prompt_words)), writer.some_of(o.max_tokens), 0});
    } else {
      const bool several = o.kind == "multi-turn";
      const std::size_t words = several ? std::max(kQuestionWords, o.prompt_words / o.turns) : kQuestionWords;
      for (std::size_t t = 0; t < (several ? o.turns : 1); ++t)
        c.turns.push_back({name + writer.text(words), o.max_tokens, t > 0 ? writer.exponential(o.think_seconds) : 0});
    }
    load.push_back(std::move(c));
    if (o.rate > 0) at += writer.exponential(1 / o.rate);
  }
  return load;
}

}  // namespace snug
