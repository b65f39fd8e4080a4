#include "text/vocabulary.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "format/gguf.hpp"

namespace snug {

namespace {

const std::vector<std::string>& required_tokens(const GgufFile& file) {
  const auto* tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens || tokens->empty()) fail<FormatError>("{}: metadata tokenizer.ggml.tokens is missing", file.path());
  return *tokens;
}

/// Tokens that end a turn in published models, whether or not the file names them.
constexpr std::string_view kEnds[] = {"<|im_end|>",
                                      "<|eot_id|>",
                                      "<|end|>",
                                      "<end_of_turn>",
                                      "<|endoftext|>",
                                      "<|eom_id|>",
                                      "<EOT>",
                                      "_<EOT>",
                                      "<|end_of_text|>",
                                      "<end_of_utterance>",
                                      "<|return|>",
                                      "<|call|>",
                                      "<|flush|>",
                                      "<|calls|>",
                                      "<turn|>",
                                      "<eos>",
                                      "<|tool_response>",
                                      "[EOT]",
                                      "[EOS]",
                                      "<\xEF\xBD\x9C"
                                      "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

/// After what was filled in, models that were trained on whole repositories go on with the next file.
constexpr std::string_view kInfillEnds[] = {"<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<file_sep>"};

/// Pre-tokenizers whose models begin with BOS when the file does not say.
constexpr std::string_view kBeginsWithBos[] = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken"};

}  // namespace

Vocabulary::Vocabulary(const GgufFile& file)
    : tokens(required_tokens(file)), kinds(tokens.size(), TokenKind::normal), index(tokens) {
  if (const auto types = file.get_numbers("tokenizer.ggml.token_type")) {
    if (types->size() != tokens.size())
      fail<FormatError>("{}: tokenizer.ggml.token_type has {} entries for {} tokens", file.path(), types->size(),
                        tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if ((*types)[i] >= 1 && (*types)[i] <= 6) kinds[i] = static_cast<TokenKind>((*types)[i]);
  }
  const auto id = [&](std::string_view key, TokenId otherwise) -> TokenId {
    const auto value = file.get_uint(std::string("tokenizer.ggml.") + std::string(key));
    if (!value) return otherwise;
    return *value < tokens.size() ? static_cast<TokenId>(*value)
                                  : -1;  // published files hold ids out of range for "none"
  };
  const bool sentencepiece = file.get_string("tokenizer.ggml.model").value_or("") == "llama";
  bos = id("bos_token_id", sentencepiece ? 1 : -1);
  eos = id("eos_token_id", sentencepiece ? 2 : -1);
  unknown = id("unknown_token_id", sentencepiece ? 0 : -1);
  if (!valid(bos)) bos = -1;
  if (!valid(eos)) eos = -1;
  if (!valid(unknown)) unknown = -1;
  const std::string_view pre = file.get_string("tokenizer.ggml.pre").value_or("");
  const bool begins = std::find(std::begin(kBeginsWithBos), std::end(kBeginsWithBos), pre) != std::end(kBeginsWithBos);
  adds_bos = file.get_bool("tokenizer.ggml.add_bos_token").value_or(sentencepiece || begins) && bos >= 0;
  adds_eos = file.get_bool("tokenizer.ggml.add_eos_token").value_or(false) && eos >= 0;
  adds_space_prefix = file.get_bool("tokenizer.ggml.add_space_prefix").value_or(sentencepiece);
  for (const TokenId end : {eos, id("eot_token_id", -1), id("eom_token_id", -1), id("fim_pad_token_id", -1),
                            id("fim_rep_token_id", -1), id("fim_sep_token_id", -1)})
    if (end >= 0) ends.insert(end);
  for (const std::string_view text : kInfillEnds)
    if (const TokenId end = index.find(text); end >= 0) ends.insert(end);
  for (const std::string_view text : kEnds)
    if (const TokenId end = index.find(text); end >= 0) {
      ends.insert(end);
      kinds[static_cast<std::size_t>(end)] = TokenKind::control;  // some files call them normal or user-defined
    }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const TokenKind kind = kinds[i];
    if (!tokens[i].empty() &&
        (kind == TokenKind::control || kind == TokenKind::user_defined || kind == TokenKind::unknown))
      special_[static_cast<unsigned char>(tokens[i][0])].push_back(static_cast<TokenId>(i));
  }
  for (auto& list : special_)
    std::stable_sort(list.begin(), list.end(), [&](TokenId a, TokenId b) {
      return tokens[static_cast<std::size_t>(a)].size() > tokens[static_cast<std::size_t>(b)].size();
    });
}

std::vector<Vocabulary::Fragment> Vocabulary::fragments(std::string_view text, bool parse_special) const {
  std::vector<Fragment> result;
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    TokenId found = -1;
    for (const TokenId candidate : special_[static_cast<unsigned char>(text[at])]) {
      if (!parse_special && kind(candidate) != TokenKind::user_defined) continue;
      if (text.substr(at).starts_with(tokens[static_cast<std::size_t>(candidate)])) {
        found = candidate;
        break;
      }
    }
    if (found < 0) {
      ++at;
      continue;
    }
    if (at > start) result.push_back({text.substr(start, at - start)});
    const std::size_t length = tokens[static_cast<std::size_t>(found)].size();
    result.push_back({text.substr(at, length), found});
    start = at += length;
  }
  if (start < text.size()) result.push_back({text.substr(start)});
  return result;
}

std::size_t Vocabulary::memory_bytes() const {
  std::size_t total = kinds.size() + index.memory_bytes() + tokens.capacity() * sizeof(std::string);
  for (const std::string& token : tokens)
    if (token.capacity() > 15) total += token.capacity() + 1;
  return total;
}

}  // namespace snug
