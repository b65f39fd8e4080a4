#pragma once
/// Sessions with a tiny model, and the tokens that they are fed.

#include "generate/session.hpp"
#include "model/transformer.hpp"
#include "support/kv_options.hpp"
#include "support/tiny_model.hpp"

namespace snug::testing_support {

/// A model with what it needs. What its codec learns lies in a folder of its own.
struct TinyEngine {
  TinyEngine(const TinyShape& shape, const ModelOptions& options, unsigned threads = 2, std::string_view kv = "",
             Bytes budget = Ledger::kUnlimited)
      : ledger(budget), pool(threads), model(parse(tiny_model(shape)), ledger, pool, with_kv(options, kv, folder)) {}
  TemporaryFolder folder;
  Ledger ledger;
  ThreadPool pool;
  Transformer model;
};

inline SamplerOptions greedy() {
  SamplerOptions options;
  options.temperature = 0;
  return options;
}

inline std::vector<TokenId> some_tokens(int count) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 37 + i / 7) % 200);
  return tokens;
}

/// `a`, then `b`.
inline std::vector<TokenId> joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Makes `tokens` the history; hash of the logits of `further` tokens, past the end of the text.
inline std::uint64_t go_on(Session& session, const std::vector<TokenId>& tokens, std::size_t further,
                           std::size_t speculate = 0) {
  session.hash_logits(true);
  session.prompt(tokens);
  GenerateOptions options;
  options.max_tokens = further;
  options.ignore_end = true;
  options.speculate = speculate;
  session.generate(options, nullptr);
  return session.stats().logits_hash;
}

}  // namespace snug::testing_support
