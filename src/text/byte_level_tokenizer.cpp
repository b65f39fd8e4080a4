/// Byte-level BPE (GPT-2, llama 3, qwen, ...): text is cut by a pre-tokenizer, then pairs are joined by rank.

#include <array>

#include "base/error.hpp"
#include "format/gguf.hpp"
#include "text/merger.hpp"
#include "text/pretokenizer.hpp"
#include "text/utf8.hpp"
#include "text/vocabulary_tokenizer.hpp"

namespace snug {

namespace {

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

}  // namespace

const std::vector<std::string>& required_merges(const GgufFile& file) {
  const auto* merges = file.get_strings("tokenizer.ggml.merges");
  if (!merges) fail<FormatError>("{}: metadata tokenizer.ggml.merges is missing", file.path());
  return *merges;
}

std::unique_ptr<Tokenizer> make_byte_level_tokenizer(const GgufFile& file) {
  return std::make_unique<ByteLevelTokenizer>(file);
}

}  // namespace snug
