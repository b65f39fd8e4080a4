#pragma once
/// Grammars that an answer must follow, token by token (llguidance): valid by construction.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.hpp"

namespace snug {

/// One answer as far as it has come.
class Constraint {
public:
  ~Constraint();
  Constraint(const Constraint&) = delete;
  Constraint& operator=(const Constraint&) = delete;

  /// For another answer, from where this one is.
  std::unique_ptr<Constraint> copy() const;
  /// Gives tokens that may not come next a logit of -infinity. Throws Error when the grammar costs too much.
  void apply(std::span<float> logits);
  /// The answer goes on with a token that apply() left, which is none that ends it.
  void take(TokenId token);
  /// Nothing but the end can follow.
  bool ended() const;

private:
  friend class Grammars;
  struct Impl;
  explicit Constraint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Of one vocabulary. Thread-safe; outlives what it makes.
class Grammars {
public:
  /// Takes about a second for a large vocabulary, and some 10 MB.
  explicit Grammars(const Tokenizer& tokenizer);
  ~Grammars();
  Grammars(const Grammars&) = delete;
  Grammars& operator=(const Grammars&) = delete;

  /// `kind`: "json_schema", "regex" or "lark" (a grammar in Lark's notation). Throws Error with what is wrong with it,
  /// also when it is too large or takes more than two seconds.
  std::unique_ptr<Constraint> constraint(std::string_view kind, std::string_view text) const;

private:
  friend class Constraint;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace snug
