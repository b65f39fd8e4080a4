#pragma once
/// What byte-level and SentencePiece-style tokenizers share.

#include "text/vocabulary.hpp"

namespace snug {

/// The parts that do not depend on how text is cut into tokens.
class VocabularyTokenizer : public Tokenizer {
public:
  explicit VocabularyTokenizer(const GgufFile& file) : vocabulary_(file) {}
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options) const override {
    std::vector<TokenId> ids;
    if (options.add_special && vocabulary_.adds_bos) ids.push_back(vocabulary_.bos);
    bool after_special = true;
    for (const Vocabulary::Fragment& fragment : vocabulary_.fragments(text, options.parse_special)) {
      if (fragment.token >= 0)
        ids.push_back(fragment.token);
      else
        encode_text(fragment.text, after_special, ids);
      after_special = fragment.token >= 0;
    }
    if (options.add_special && vocabulary_.adds_eos) ids.push_back(vocabulary_.eos);
    return ids;
  }
  std::string piece(TokenId id, bool special) const override {
    if (!vocabulary_.valid(id)) return "";
    const std::string& token = vocabulary_.tokens[static_cast<std::size_t>(id)];
    switch (vocabulary_.kind(id)) {
      case TokenKind::control:
      case TokenKind::unknown:
        return special ? token : "";
      case TokenKind::unused:
        return "";
      case TokenKind::user_defined:
        return token;
      default:
        return decode_token(token);
    }
  }
  std::size_t size() const override { return vocabulary_.tokens.size(); }
  TokenId bos() const override { return vocabulary_.bos; }
  TokenId eos() const override { return vocabulary_.eos; }
  bool adds_bos() const override { return vocabulary_.adds_bos; }
  bool is_end(TokenId id) const override { return vocabulary_.ends.contains(id); }
  bool is_control(TokenId id) const override {
    return vocabulary_.valid(id) && vocabulary_.kind(id) == TokenKind::control;
  }
  std::size_t memory_bytes() const override { return vocabulary_.memory_bytes(); }

protected:
  virtual void encode_text(std::string_view text, bool after_special, std::vector<TokenId>& ids) const = 0;
  virtual std::string decode_token(const std::string& token) const = 0;
  Vocabulary vocabulary_;
};

std::unique_ptr<Tokenizer> make_byte_level_tokenizer(const GgufFile& file);
/// `tokenizer.ggml.model` llama: pairs are joined by the score of what they become.
std::unique_ptr<Tokenizer> make_scored_tokenizer(const GgufFile& file);
/// gemma4: the same text and vocabulary, but pairs are joined by a list of merges.
std::unique_ptr<Tokenizer> make_merged_tokenizer(const GgufFile& file);

/// `tokenizer.ggml.merges`; throws FormatError when there are none.
const std::vector<std::string>& required_merges(const GgufFile& file);

}  // namespace snug
