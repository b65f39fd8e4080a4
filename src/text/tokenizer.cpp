#include "text/tokenizer.hpp"

#include <array>

#include "base/error.hpp"
#include "format/gguf.hpp"
#include "text/merger.hpp"
#include "text/pretokenizer.hpp"
#include "text/utf8.hpp"
#include "text/vocabulary.hpp"

namespace snug {

namespace {

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

/// GPT-2's reversible spelling of bytes as printable characters.
struct ByteAlphabet {
  std::array<std::string, 256> letters;
  std::array<std::int16_t, 512> bytes;  ///< by code point, -1: none

  ByteAlphabet() {
    bytes.fill(-1);
    std::uint16_t next = 256;
    for (std::uint16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      const std::uint16_t code = printable ? b : next++;
      bytes[code] = static_cast<std::int16_t>(b);
      letters[b] = code < 128 ? std::string(1, static_cast<char>(code))
                              : std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

class ByteLevelTokenizer final : public VocabularyTokenizer {
public:
  explicit ByteLevelTokenizer(const GgufFile& file)
      : VocabularyTokenizer(file),
        pretokenizer_(file.get_string("tokenizer.ggml.pre").value_or("default")),
        merges_(required_merges(file)) {}
  std::size_t memory_bytes() const override { return VocabularyTokenizer::memory_bytes() + merges_.memory_bytes(); }

protected:
  static const std::vector<std::string>& required_merges(const GgufFile& file) {
    const auto* merges = file.get_strings("tokenizer.ggml.merges");
    if (!merges) fail<FormatError>("{}: metadata tokenizer.ggml.merges is missing", file.path());
    return *merges;
  }

  void encode_text(std::string_view text, bool, std::vector<TokenId>& ids) const override {
    std::string spelled, key;
    std::vector<std::string_view> symbols;
    for (const std::string_view word : pretokenizer_.split(text)) {
      spelled.clear();
      for (const char c : word) spelled += alphabet().letters[static_cast<unsigned char>(c)];
      if (pretokenizer_.ignores_merges()) {
        if (const TokenId whole = vocabulary_.index.find(spelled); whole >= 0) {
          ids.push_back(whole);
          continue;
        }
      }
      symbols.clear();
      for (std::size_t at = 0; at < spelled.size();) {
        const std::size_t n = static_cast<unsigned char>(spelled[at]) < 0x80 ? 1 : 2;
        symbols.push_back(std::string_view(spelled).substr(at, n));
        at += n;
      }
      const auto rank = [&](std::string_view left, std::string_view right) {
        key.assign(left).append(" ").append(right);
        const std::int32_t found = merges_.find(key);
        return found < 0 ? kNoMerge : static_cast<double>(found);
      };
      for (const std::string_view symbol : merge_symbols(symbols, rank)) push(symbol, ids);
    }
  }

  /// A symbol that is no token falls apart into its letters.
  void push(std::string_view symbol, std::vector<TokenId>& ids) const {
    if (const TokenId id = vocabulary_.index.find(symbol); id >= 0) {
      ids.push_back(id);
      return;
    }
    for (std::size_t at = 0; at < symbol.size();) {
      const std::size_t n = static_cast<unsigned char>(symbol[at]) < 0x80 ? 1 : 2;
      if (const TokenId id = vocabulary_.index.find(symbol.substr(at, n)); id >= 0) ids.push_back(id);
      at += n;
    }
  }

  std::string decode_token(const std::string& token) const override {
    std::string bytes;
    for (std::size_t at = 0; at < token.size();) {
      const std::size_t n = utf8_length(std::string_view(token).substr(at));
      const auto lead = static_cast<unsigned char>(token[at]);
      std::int16_t byte = -1;
      if (n == 1) byte = alphabet().bytes[lead];
      if (n == 2 && ((lead & 31u) << 6) < 512)
        byte = alphabet().bytes[((lead & 31u) << 6 | (static_cast<unsigned char>(token[at + 1]) & 63u)) & 511u];
      if (byte >= 0)
        bytes += static_cast<char>(byte);
      else
        bytes += token.substr(at, n ? n : 1);
      at += n ? n : 1;
    }
    return bytes;
  }

private:
  Pretokenizer pretokenizer_;
  StringIndex merges_;
};

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's visible space

class SentencePieceTokenizer final : public VocabularyTokenizer {
public:
  explicit SentencePieceTokenizer(const GgufFile& file) : VocabularyTokenizer(file) {
    const auto scores = file.get_numbers("tokenizer.ggml.scores");
    if (!scores) fail<FormatError>("{}: metadata tokenizer.ggml.scores is missing", file.path());
    if (scores->size() != vocabulary_.tokens.size())
      fail<FormatError>("{}: tokenizer.ggml.scores has {} entries for {} tokens", file.path(), scores->size(),
                        vocabulary_.tokens.size());
    scores_.assign(scores->begin(), scores->end());
    for (unsigned b = 0; b < 256; ++b) bytes_[b] = vocabulary_.index.find(fmt::format("<0x{:02X}>", b));
  }
  std::size_t memory_bytes() const override {
    return VocabularyTokenizer::memory_bytes() + scores_.size() * sizeof(float);
  }

protected:
  void encode_text(std::string_view text, bool after_special, std::vector<TokenId>& ids) const override {
    std::string spelled;
    if (vocabulary_.adds_space_prefix && after_special) spelled += kSpace;
    for (const char c : text) {
      if (c == ' ')
        spelled += kSpace;
      else
        spelled += c;
    }
    std::vector<std::string_view> symbols;
    for (std::size_t at = 0; at < spelled.size();) {
      const std::size_t n = std::max<std::size_t>(1, utf8_length(std::string_view(spelled).substr(at)));
      symbols.push_back(std::string_view(spelled).substr(at, n));
      at += n;
    }
    const auto rank = [&](std::string_view left, std::string_view right) {
      const TokenId id = vocabulary_.index.find({left.data(), left.size() + right.size()});
      return id < 0 ? kNoMerge : -static_cast<double>(scores_[static_cast<std::size_t>(id)]);
    };
    for (const std::string_view symbol : merge_symbols(symbols, rank)) {
      if (const TokenId id = vocabulary_.index.find(symbol); id >= 0) {
        ids.push_back(id);
        continue;
      }
      for (const char c : symbol) {
        const TokenId byte = bytes_[static_cast<unsigned char>(c)];
        if (byte >= 0)
          ids.push_back(byte);
        else if (vocabulary_.unknown >= 0)
          ids.push_back(vocabulary_.unknown);
      }
    }
  }

  std::string decode_token(const std::string& token) const override {
    if (token.size() == 6 && token.starts_with("<0x") && token[5] == '>') {
      const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
      return std::string(1, static_cast<char>(digit(token[3]) * 16 + digit(token[4])));
    }
    std::string text;
    for (std::size_t at = 0; at < token.size();) {
      if (std::string_view(token).substr(at).starts_with(kSpace)) {
        text += ' ';
        at += kSpace.size();
      } else {
        text += token[at++];
      }
    }
    return text;
  }

private:
  std::vector<float> scores_;
  std::array<TokenId, 256> bytes_{};
};

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
  const auto model = file.get_string("tokenizer.ggml.model");
  if (!model) fail<FormatError>("{}: metadata tokenizer.ggml.model is missing", file.path());
  if (*model == "gpt2") return std::make_unique<ByteLevelTokenizer>(file);
  if (*model == "llama") return std::make_unique<SentencePieceTokenizer>(file);
  fail<FormatError>("{}: tokenizer '{}' is not supported; known are gpt2, llama", file.path(), *model);
}

std::string Tokenizer::decode(const std::vector<TokenId>& ids, bool special) const {
  std::string text;
  for (const TokenId id : ids) text += piece(id, special);
  return text;
}

std::string StreamDecoder::push(std::string_view piece) {
  pending_ += piece;
  std::size_t keep = 0;
  // Only the last three bytes can begin a character that is not complete yet.
  for (std::size_t n = 1; n <= std::min<std::size_t>(3, pending_.size()); ++n) {
    const std::string_view tail = std::string_view(pending_).substr(pending_.size() - n);
    if ((static_cast<unsigned char>(tail[0]) & 0xC0) == 0x80) continue;
    if (utf8_expected(static_cast<unsigned char>(tail[0])) > n) keep = n;
    break;
  }
  std::string out = pending_.substr(0, pending_.size() - keep);
  pending_.erase(0, pending_.size() - keep);
  return out;
}

std::string StreamDecoder::finish() {
  return std::exchange(pending_, {});
}

}  // namespace snug
