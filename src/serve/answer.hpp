#pragma once
/// One HTTP request on its way through the scheduler, whatever API it came by.

#include "serve/api.hpp"

namespace snug {

class Answer : public std::enable_shared_from_this<Answer> {
public:
  virtual ~Answer() = default;
  /// Every answer must follow a grammar (Grammars::constraint).
  void follow(std::string kind, std::string grammar) { kind_ = std::move(kind), grammar_ = std::move(grammar); }
  /// Several prompts in place of the request's own: each of them gets an equal share of the choices, in order.
  void ask(std::vector<std::vector<TokenId>> prompts) { prompts_ = std::move(prompts); }
  /// Asks for `choices` answers, with seeds that follow each other. Throws ContextExceeded; nothing was sent then.
  void start();

protected:
  Answer(ServedModel& model, std::shared_ptr<HttpReply> reply, ServeRequest request, std::size_t choices = 1)
      : model_(model), reply_(std::move(reply)), request_(std::move(request)), choices_(choices) {}

  /// Before anything else, on the API's thread or that of grammars: a stream begins here.
  virtual void begin() {}
  /// On the scheduler's thread.
  virtual void take(std::size_t choice, const ServeEvent& event) = 0;
  /// What is wrong with a grammar, in the API's own shape; OpenAI's unless another is given.
  virtual HttpResponse refusal(const ApiError& error) const;

  ServedModel& model_;
  std::shared_ptr<HttpReply> reply_;
  ServeRequest request_;
  std::size_t choices_;
  std::vector<std::vector<TokenId>> prompts_;  ///< of the choices

private:
  void note_tokens(const ServeEvent& event);
  /// `constraint` is null, or of the first answer.
  void submit(std::vector<ServeRequest> requests, std::unique_ptr<Constraint> constraint);

  std::string kind_, grammar_;
};

}  // namespace snug
