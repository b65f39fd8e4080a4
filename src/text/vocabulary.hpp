#pragma once
/// What both kinds of tokenizer share: the tokens, their kinds, the special ones.

#include <array>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "text/string_index.hpp"
#include "text/tokenizer.hpp"

namespace snug {

/// `tokenizer.ggml.token_type`.
enum class TokenKind : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Vocabulary {
  explicit Vocabulary(const GgufFile& file);
  Vocabulary(const Vocabulary&) = delete;

  /// A run of ordinary text, or a special token.
  struct Fragment {
    std::string_view text;
    TokenId token = -1;
  };
  /// Cuts out user-defined tokens, and control tokens when asked for; the longest at each place.
  std::vector<Fragment> fragments(std::string_view text, bool parse_special) const;
  bool valid(TokenId id) const { return id >= 0 && static_cast<std::size_t>(id) < tokens.size(); }
  TokenKind kind(TokenId id) const { return kinds[static_cast<std::size_t>(id)]; }
  std::size_t memory_bytes() const;

  const std::vector<std::string>& tokens;  ///< in the file
  std::vector<TokenKind> kinds;
  StringIndex index;
  TokenId bos = -1, eos = -1, unknown = -1;
  bool adds_bos = false, adds_eos = false, adds_space_prefix = false;
  std::unordered_set<TokenId> ends;

private:
  std::array<std::vector<TokenId>, 256> special_;  ///< by first byte, longest first
};

}  // namespace snug
