#pragma once
/// Conversations for a server to be measured with, the same for the same seed.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

struct LoadTurn {
  std::string question;
  std::size_t max_tokens;
  double think_seconds;  ///< after the answer before
};
struct LoadConversation {
  double at;           ///< seconds from the start
  std::string system;  ///< "": none
  std::vector<LoadTurn> turns;
};

struct LoadOptions {
  std::string kind = "shared-prefix";  ///< load_kinds()
  std::size_t conversations = 16;
  double rate = 0;                 ///< of them per second, Poisson arrivals; 0: all at once
  std::size_t prompt_words = 700;  ///< of the system prompt they share, or of a prompt at most
  std::string ask;                 ///< in front of each question
  std::size_t max_tokens = 48;
  std::size_t turns = 4;     ///< of a conversation
  double think_seconds = 2;  ///< between them, on average
  std::uint64_t seed = 1;
};

/// shared-prefix: one system prompt, a short question each. own-prefix: the same, but each its own. multi-turn: several
/// turns, each after some thinking; the words of the prompt come evenly in all of them. mixed-lengths: prompts and
/// answers of a few to all words, most of them short.
std::vector<std::string> load_kinds();
/// REQUIRES: a kind of load_kinds().
std::vector<LoadConversation> make_load(const LoadOptions& options);

}  // namespace snug
