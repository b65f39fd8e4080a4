#pragma once
/// What a model thinks before it speaks: `<think>...</think>` at the beginning of an answer. Some templates write the
/// first tag into the prompt already.

#include <span>
#include <string>
#include <string_view>

#include "text/tokenizer.hpp"

namespace snug {

/// Whether an answer to the prompt begins in the middle of a thought.
bool begins_in_thought(const Tokenizer& tokenizer, std::span<const TokenId> prompt);

/// Takes text as it comes. What may become a tag is held back until it is clear, and so is white space around a
/// thought.
class ThinkingReader {
public:
  /// `begun`: the prompt ends in a thought (begins_in_thought).
  explicit ThinkingReader(bool begun) : begun_(begun) {}

  /// Text that is no thought; thoughts are added to `thinking`.
  std::string push(std::string_view text, std::string& thinking);
  /// The same of what is left at the end.
  std::string finish(std::string& thinking);
  bool thinks() const { return state_ == State::inside; }

private:
  enum class State { start, inside, after, through };  ///< after: white space that follows a thought

  /// The first bytes of what is pending, but for white space at its ends.
  void add_thought(std::size_t bytes, std::string& thinking);

  bool begun_, thought_ = false;  ///< thought_: something was added
  State state_ = State::start;
  std::string pending_;
};

}  // namespace snug
