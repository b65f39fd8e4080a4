#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer.hpp"

#include <pcre2.h>

#include <string>

#include "base/error.hpp"
#include "text/utf8.hpp"

namespace snug {

namespace {

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kDigit = R"(\p{N})";
constexpr const char* kLlama3 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* kQwen35 =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kThreeDigits = R"(\p{N}{1,3})";
constexpr const char* kEastAsian = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr const char* kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kLineEnd = R"([\r\n])";
constexpr const char* kHanHangul = R"([\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";

/// Expressions are applied one after the other, each within the pieces of the one before.
struct Row {
  std::string_view name;
  const char* expressions[5];
  bool ignores_merges = false;
};

constexpr Row kRows[] = {
    {"default", {kGpt2}},
    {"gpt-2", {kGpt2}},
    {"olmo", {kGpt2}},
    {"smollm", {kDigit, kGpt2}},
    {"llama-bpe", {kLlama3}, true},
    {"llama3", {kLlama3}, true},
    {"llama-v3", {kLlama3}, true},
    {"smaug-bpe", {kLlama3}},
    {"qwen2", {kQwen2}},
    {"deepseek-r1-qwen", {kQwen2}},
    {"qwen35", {kQwen35}},
    {"stablelm2", {kQwen2}},
    {"hunyuan", {kQwen2}},
    {"glm4", {kLlama3}},
    {"chatglm-bpe", {kLlama3}},
    {"dbrx", {kLlama3}},
    {"falcon3", {kLlama3}, true},
    {"pixtral", {kLlama3}, true},
    {"tekken", {kTekken}, true},
    {"deepseek-coder", {kLineEnd, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHanHangul, kDigit}},
    {"deepseek-v3", {kThreeDigits, kEastAsian, kDeepseek3}},
    {"hunyuan-dense", {kThreeDigits, kEastAsian, kDeepseek3}},
    {"starcoder", {kDigit, kGpt2}},
    {"refact", {kDigit, kGpt2}},
    {"command-r", {kDigit, kGpt2}},
    {"exaone", {kDigit, kGpt2}},
    {"phi-2", {kGpt2}},
    {"mpt", {kGpt2}},
    {"gpt-4o", {kGpt4o}},
    {"llama4", {kGpt4o}},
};

const Row& find_row(std::string_view name) {
  std::string known;
  for (const Row& row : kRows) {
    if (row.name == name) return row;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  fail<FormatError>("pre-tokenizer '{}' is not supported; known are {}", name, known);
}

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
using Code = std::unique_ptr<pcre2_code, CodeDeleter>;
using Match = std::unique_ptr<pcre2_match_data, MatchDeleter>;

Code compile(const char* expression) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                          &error, &offset, nullptr));
  if (!code) fail("pre-tokenizer expression does not compile (PCRE2 error {})", error);
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

/// Matches and what lies between them.
void split_valid(const pcre2_code* code, std::string_view text, std::vector<std::string_view>& out) {
  const Match match(pcre2_match_data_create_from_pattern(code, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::size_t at = 0;
  while (at < text.size()) {
    const int count = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (count < 0 && count != PCRE2_ERROR_NOMATCH) fail("splitting the text into words failed (PCRE2 error {})", count);
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    const std::size_t begin = count < 0 ? text.size() : range[0], end = count < 0 ? text.size() : range[1];
    if (begin > at) out.push_back(text.substr(at, begin - at));
    if (end > begin) out.push_back(text.substr(begin, end - begin));
    at = end > at ? end : text.size();
  }
}

}  // namespace

struct Pretokenizer::Impl {
  const Row& row;
  std::vector<Code> codes;
};

Pretokenizer::Pretokenizer(std::string_view name) : impl_(new Impl{find_row(name), {}}) {
  for (const char* expression : impl_->row.expressions)
    if (expression) impl_->codes.push_back(compile(expression));
}
Pretokenizer::~Pretokenizer() = default;

bool Pretokenizer::ignores_merges() const {
  return impl_->row.ignores_merges;
}

std::vector<std::string_view> Pretokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    for (std::size_t n; end < text.size() && (n = utf8_length(text.substr(end))) > 0;) end += n;
    if (end == at) {
      pieces.push_back(text.substr(at, 1));
      ++at;
      continue;
    }
    std::vector<std::string_view> parts{text.substr(at, end - at)}, next;
    for (const Code& code : impl_->codes) {
      next.clear();
      for (const std::string_view part : parts) split_valid(code.get(), part, next);
      std::swap(parts, next);
    }
    pieces.insert(pieces.end(), parts.begin(), parts.end());
    at = end;
  }
  return pieces;
}

}  // namespace snug
