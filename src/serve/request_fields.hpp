#pragma once
/// What bodies of all APIs have in common.

#include "serve/json_fields.hpp"

namespace snug {

/// Of an answer: more than any context has room for.
inline constexpr std::size_t kAnyTokens = std::size_t{1} << 40;

/// As text, with what is not UTF-8 replaced.
std::string dump(const Json& json);

/// Discarded when it is none, or nested deeper than any client's: what walks it later goes down one call per level.
Json parse_json(std::string_view text);
/// The body as a JSON object. Throws ApiError.
Json parse_body(const HttpRequest& request);

/// temperature, top_p, top_k, min_p, typical_p and penalties, where the body has them.
void take_sampling(const Json& body, SamplerOptions& sampler);
/// A request with the fields of sampling, "seed" and "logit_bias". Throws ApiError, also when it names a way of
/// keeping keys and values that is not this server's (check_kv_fields).
ServeRequest sampled_request(const ServedModel& model, const HttpRequest& request, const Json& body);
/// Extra fields: "kv" may name the codec that this server runs with, "kv_policy" nothing but "none".
void check_kv_fields(const ServedModel& model, const Json& body);
/// A text, a list of texts, tokens, or a list of lists of tokens: prompts, at most so many. None: it is not there.
std::vector<std::vector<TokenId>> prompts_field(const ServedModel& model, const Json& body, const char* name,
                                                std::size_t most);
/// "seed", or one that nobody had before.
std::uint64_t take_seed(const Json& body);
std::uint64_t random_seed();

/// Whose it is (by the key) and how urgent: "priority" (lower comes first, as in vLLM) and "timeout" (seconds).
void take_precedence(const Json& body, const HttpRequest& request, ServeRequest& into);

/// Content as text: a string, or parts of which each is text.
std::string content_text(const Json& content);
/// Messages with a role and text, as templates know them.
Json checked_messages(const Json& messages);

/// A JSON schema for Grammars, of JSON on one line: with free white space small models never come to an end.
std::string schema_grammar(Json schema);

std::int64_t seconds_now();

}  // namespace snug
