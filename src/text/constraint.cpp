#include "text/constraint.hpp"

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "text/rust_text.hpp"

namespace snug {

namespace {

struct FreeGrammars {
  void operator()(snug_grammars* g) const { snug_grammars_free(g); }
};
struct FreeConstraint {
  void operator()(snug_constraint* c) const { snug_constraint_free(c); }
};

}  // namespace

struct Grammars::Impl {
  std::unique_ptr<snug_grammars, FreeGrammars> grammars;
  std::vector<TokenId> ends;  ///< tokens that end an answer; the grammar knows the first
  std::size_t vocabulary;
};

struct Constraint::Impl {
  using Owned = std::unique_ptr<snug_constraint, FreeConstraint>;
  static std::unique_ptr<Constraint> make(const Grammars::Impl& from, Owned constraint) {
    std::vector<std::uint32_t> mask((from.vocabulary + 31) / 32);
    auto impl = std::make_unique<Impl>(Impl{from, std::move(constraint), std::move(mask)});
    return std::unique_ptr<Constraint>(new Constraint(std::move(impl)));
  }
  const Grammars::Impl& from;
  Owned constraint;
  std::vector<std::uint32_t> mask;
};

Grammars::Grammars(const Tokenizer& tokenizer) : impl_(std::make_unique<Impl>()) {
  std::string pieces;
  std::vector<std::uint32_t> sizes;
  impl_->vocabulary = tokenizer.size();
  for (TokenId id = 0; id < static_cast<TokenId>(tokenizer.size()); ++id) {
    if (tokenizer.is_end(id)) impl_->ends.push_back(id);
    const std::string piece = tokenizer.is_control(id) ? std::string() : tokenizer.piece(id);
    pieces += piece;
    sizes.push_back(static_cast<std::uint32_t>(piece.size()));
  }
  if (impl_->ends.empty()) fail("the model has no token that ends an answer: it cannot follow a grammar");
  if (const auto eos = std::find(impl_->ends.begin(), impl_->ends.end(), tokenizer.eos()); eos != impl_->ends.end())
    std::iter_swap(impl_->ends.begin(), eos);
  snug_bytes error{};
  impl_->grammars.reset(snug_grammars_new(pieces.data(), sizes.data(), sizes.size(),
                                          static_cast<std::uint32_t>(impl_->ends.front()), &error));
  if (!impl_->grammars) fail("the vocabulary cannot follow grammars: {}", take_text(error));
}

Grammars::~Grammars() = default;

std::unique_ptr<Constraint> Grammars::constraint(std::string_view kind, std::string_view text) const {
  snug_bytes error{};
  Constraint::Impl::Owned made(
      snug_constraint_new(impl_->grammars.get(), kind.data(), kind.size(), text.data(), text.size(), &error));
  if (!made) fail("{}", take_text(error));
  return Constraint::Impl::make(*impl_, std::move(made));
}

Constraint::Constraint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Constraint::~Constraint() = default;

std::unique_ptr<Constraint> Constraint::copy() const {
  snug_bytes error{};
  Impl::Owned made(snug_constraint_copy(impl_->constraint.get(), &error));
  if (!made) fail("{}", take_text(error));
  return Impl::make(impl_->from, std::move(made));
}

void Constraint::apply(std::span<float> logits) {
  snug_bytes error{};
  auto& mask = impl_->mask;
  if (snug_constraint_mask(impl_->constraint.get(), mask.data(), mask.size(), &error) != 0)
    fail("the grammar cannot be followed further: {}", take_text(error));
  const auto bit = [](TokenId id) -> std::uint32_t { return 1u << (static_cast<std::size_t>(id) % 32); };
  const auto word = [&mask](TokenId id) -> std::uint32_t& { return mask[static_cast<std::size_t>(id) / 32]; };
  const auto& ends = impl_->from.ends;
  if ((word(ends.front()) & bit(ends.front())) != 0)
    for (const TokenId id : ends) word(id) |= bit(id);
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (std::size_t w = 0; w < mask.size(); ++w) {
    if (mask[w] == ~std::uint32_t{0}) continue;
    for (std::size_t i = 32 * w; i < std::min(logits.size(), 32 * (w + 1)); ++i)
      if ((mask[w] >> i % 32 & 1) == 0) logits[i] = kNever;
  }
  for (std::size_t i = 32 * mask.size(); i < logits.size(); ++i) logits[i] = kNever;
}

void Constraint::take(TokenId token) {
  snug_bytes error{};
  if (snug_constraint_take(impl_->constraint.get(), static_cast<std::uint32_t>(token), &error) != 0)
    fail("the grammar cannot be followed further: {}", take_text(error));
}

bool Constraint::ended() const {
  return snug_constraint_ended(impl_->constraint.get()) != 0;
}

}  // namespace snug
