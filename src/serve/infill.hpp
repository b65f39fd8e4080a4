#pragma once
/// Fill in the middle: what stands between a prefix and a suffix, for models that were trained for it (Bavarian et al.
/// 2022).

#include <optional>

#include "serve/api.hpp"

namespace snug {

/// Tokens that say what a part of a prompt is; -1: the model has none.
struct InfillTokens {
  TokenId prefix = -1, suffix = -1, middle = -1;
  TokenId repository = -1, file = -1;  ///< before a repository's name, and before a file's
};

/// From the file's metadata (tokenizer.ggml.fim_pre_token_id and so on), else from what such tokens are called in
/// published models. None: the model has no token for one of the three parts.
std::optional<InfillTokens> find_infill_tokens(const GgufFile& file, const Tokenizer& tokenizer);

struct InfillText {
  struct File {
    std::string name, text;
  };
  std::string prefix, suffix;
  std::vector<File> extra{};  ///< other files of the repository
};

/// The prompt; its answer is the middle. Throws ApiError when the model has no such tokens.
std::vector<TokenId> infill_prompt(const ServedModel& model, const InfillText& text);

/// {"error": {"code": status, ...}}, as llama.cpp's server has it.
HttpResponse llama_error(const ApiError& error);
/// POST /infill, llama.cpp's: input_prefix, input_suffix, input_extra, prompt.
void llama_infill(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
