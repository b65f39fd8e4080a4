/// SentencePiece-style BPE: spaces become a visible character, characters are joined pair by pair, and what is no token
/// falls apart into bytes.

#include <array>

#include "base/error.hpp"
#include "format/gguf.hpp"
#include "text/merger.hpp"
#include "text/utf8.hpp"
#include "text/vocabulary_tokenizer.hpp"

namespace snug {

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's visible space

class SpacedTokenizer : public VocabularyTokenizer {
public:
  explicit SpacedTokenizer(const GgufFile& file) : VocabularyTokenizer(file) {
    for (unsigned b = 0; b < 256; ++b) bytes_[b] = vocabulary_.index.find(fmt::format("<0x{:02X}>", b));
  }

protected:
  static std::string spell(std::string_view text) {
    std::string spelled;
    for (const char c : text) {
      if (c == ' ')
        spelled += kSpace;
      else
        spelled += c;
    }
    return spelled;
  }

  template <class Rank>
  void join(std::string_view spelled, Rank&& rank, std::vector<TokenId>& ids) const {
    std::vector<std::string_view> symbols;
    for (std::size_t at = 0; at < spelled.size();) {
      const std::size_t n = std::max<std::size_t>(1, utf8_length(spelled.substr(at)));
      symbols.push_back(spelled.substr(at, n));
      at += n;
    }
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
  std::array<TokenId, 256> bytes_{};
};

class ScoredTokenizer final : public SpacedTokenizer {
public:
  explicit ScoredTokenizer(const GgufFile& file) : SpacedTokenizer(file) {
    const auto scores = file.get_numbers("tokenizer.ggml.scores");
    if (!scores) fail<FormatError>("{}: metadata tokenizer.ggml.scores is missing", file.path());
    if (scores->size() != vocabulary_.tokens.size())
      fail<FormatError>("{}: tokenizer.ggml.scores has {} entries for {} tokens", file.path(), scores->size(),
                        vocabulary_.tokens.size());
    scores_.assign(scores->begin(), scores->end());
  }
  std::size_t memory_bytes() const override {
    return VocabularyTokenizer::memory_bytes() + scores_.size() * sizeof(float);
  }

protected:
  void encode_text(std::string_view text, bool after_special, std::vector<TokenId>& ids) const override {
    std::string spelled = spell(text);
    if (vocabulary_.adds_space_prefix && after_special) spelled.insert(0, kSpace);
    const auto rank = [&](std::string_view left, std::string_view right) {
      const TokenId id = vocabulary_.index.find({left.data(), left.size() + right.size()});
      return id < 0 ? kNoMerge : -static_cast<double>(scores_[static_cast<std::size_t>(id)]);
    };
    join(spelled, rank, ids);
  }

private:
  std::vector<float> scores_;
};

class MergedTokenizer final : public SpacedTokenizer {
public:
  explicit MergedTokenizer(const GgufFile& file) : SpacedTokenizer(file), merges_(required_merges(file)) {
    // Published files say otherwise, and the models are useless without.
    vocabulary_.adds_bos = vocabulary_.bos >= 0;
  }
  std::size_t memory_bytes() const override { return VocabularyTokenizer::memory_bytes() + merges_.memory_bytes(); }

protected:
  void encode_text(std::string_view text, bool, std::vector<TokenId>& ids) const override {
    const std::string spelled = spell(text);
    std::string key;
    const auto rank = [&](std::string_view left, std::string_view right) {
      key.assign(left).append(" ").append(right);
      const std::int32_t found = merges_.find(key);
      return found < 0 ? kNoMerge : static_cast<double>(found);
    };
    // Runs of line ends stand apart, and are one token where there is one.
    for (std::size_t at = 0; at < spelled.size();) {
      const bool lines = spelled[at] == '\n';
      const std::size_t end =
          std::min(spelled.size(), lines ? spelled.find_first_not_of('\n', at) : spelled.find('\n', at));
      const std::string_view part = std::string_view(spelled).substr(at, end - at);
      const TokenId whole = lines ? vocabulary_.index.find(part) : -1;
      if (whole >= 0)
        ids.push_back(whole);
      else
        join(part, rank, ids);
      at = end;
    }
  }

private:
  StringIndex merges_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_scored_tokenizer(const GgufFile& file) {
  return std::make_unique<ScoredTokenizer>(file);
}
std::unique_ptr<Tokenizer> make_merged_tokenizer(const GgufFile& file) {
  return std::make_unique<MergedTokenizer>(file);
}

}  // namespace snug
