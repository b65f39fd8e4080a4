#include "serve/thinking.hpp"

#include <utility>
#include <vector>

#include "serve/partial_mark.hpp"

namespace snug {

namespace {

constexpr std::string_view kBegin = "<think>", kEnd = "</think>", kSpace = " \n\r\t";

}  // namespace

bool begins_in_thought(const Tokenizer& tokenizer, std::span<const TokenId> prompt) {
  constexpr std::size_t kTokens = 16;  // the tag may be several
  const auto last = prompt.last(std::min(prompt.size(), kTokens));
  std::string text = tokenizer.decode({last.begin(), last.end()}, true);
  text.erase(text.find_last_not_of(kSpace) + 1);
  return text.ends_with(kBegin);
}

std::string ThinkingReader::push(std::string_view text, std::string& thinking) {
  if (state_ == State::through) return std::string(text);
  pending_ += text;
  if (state_ == State::start) {
    const std::size_t first = pending_.find_first_not_of(kSpace);
    if (first == pending_.npos) return {};
    const std::string_view rest = std::string_view(pending_).substr(first);
    if (rest.size() < kBegin.size() && kBegin.starts_with(rest)) return {};
    if (rest.starts_with(kBegin)) {
      pending_.erase(0, first + kBegin.size());
    } else if (begun_) {
      pending_.erase(0, first);
    } else {
      state_ = State::through;
      return std::exchange(pending_, {});
    }
    state_ = State::inside;
  }
  if (state_ == State::inside) {
    const std::size_t end = pending_.find(kEnd);
    add_thought(end != pending_.npos ? end : pending_.size() - partial_mark(pending_, kEnd), thinking);
    if (end == pending_.npos) return {};
    pending_.erase(0, pending_.find(kEnd) + kEnd.size());
    state_ = State::after;
  }
  const std::size_t first = pending_.find_first_not_of(kSpace);
  if (first == pending_.npos) return {};
  state_ = State::through;
  return std::exchange(pending_, {}).substr(first);
}

void ThinkingReader::add_thought(std::size_t bytes, std::string& thinking) {
  const auto space = [this](std::size_t at) { return kSpace.find(pending_[at]) != kSpace.npos; };
  std::size_t first = 0;
  while (!thought_ && first < bytes && space(first)) ++first;
  while (bytes > first && space(bytes - 1)) --bytes;
  thinking += pending_.substr(first, bytes - first);
  pending_.erase(0, bytes);
  thought_ = thought_ || bytes > first;
}

std::string ThinkingReader::finish(std::string& thinking) {
  if (state_ == State::inside) add_thought(pending_.size(), thinking);
  return state_ == State::start && !begun_ ? std::exchange(pending_, {}) : std::string();
}

}  // namespace snug
