#include "text/tokenizer.hpp"

#include <utility>

#include "base/error.hpp"
#include "format/gguf.hpp"
#include "text/utf8.hpp"
#include "text/vocabulary_tokenizer.hpp"

namespace snug {

std::unique_ptr<Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
  const auto model = file.get_string("tokenizer.ggml.model");
  if (!model) fail<FormatError>("{}: metadata tokenizer.ggml.model is missing", file.path());
  if (*model == "gpt2") return make_byte_level_tokenizer(file);
  if (*model == "llama") return make_scored_tokenizer(file);
  if (*model == "gemma4") return make_merged_tokenizer(file);
  fail<FormatError>("{}: tokenizer '{}' is not supported; known are gpt2, llama, gemma4", file.path(), *model);
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
