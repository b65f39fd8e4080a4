#pragma once
/// Tokens that two lists begin with.

#include <algorithm>
#include <span>

#include "text/tokenizer.hpp"

namespace snug {

inline std::size_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace snug
