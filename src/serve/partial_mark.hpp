#pragma once
/// A mark in text that comes in pieces.

#include <algorithm>
#include <string_view>

namespace snug {

/// Bytes at the end of `text` that `mark` may begin with.
inline std::size_t partial_mark(std::string_view text, std::string_view mark) {
  for (std::size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n)
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  return 0;
}

}  // namespace snug
