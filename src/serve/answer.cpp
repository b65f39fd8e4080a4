#include "serve/answer.hpp"

#include "serve/openai_api.hpp"

namespace snug {

void Answer::start() {
  if (prompts_.empty()) prompts_.push_back(request_.prompt);
  std::vector<ServeRequest> requests;
  for (std::size_t i = 0; i < choices_; ++i) {
    requests.push_back(request_);
    requests.back().prompt = prompts_[i * prompts_.size() / choices_];
    // Checked here, before a stream says that all is well.
    model_.scheduler.check(requests.back());
  }
  if (model_.before_submit) {
    if (!model_.before_submit(requests.front(), choices_)) return;
    for (ServeRequest& request : requests)
      if (request.prompt == requests.front().prompt) request.kept = requests.front().kept;
  }
  if (kind_.empty()) return submit(std::move(requests), nullptr);
  model_.with_grammars([self = shared_from_this(), gone = gone_flag(*reply_), requests = std::move(requests)] {
    if (*gone) return;
    try {
      self->submit(requests, self->model_.constraint(self->kind_, self->grammar_));
    } catch (const ApiError& e) {
      self->reply_->send(self->refusal(e));
    } catch (const std::exception& e) {
      self->reply_->send(self->refusal({503, "server_error", e.what()}));
    }
  });
}

HttpResponse Answer::refusal(const ApiError& error) const {
  return openai_error(error);
}

void Answer::submit(std::vector<ServeRequest> requests, std::unique_ptr<Constraint> constraint) {
  for (std::size_t i = 1; constraint && i < choices_; ++i) requests[i].constraint = constraint->copy();
  requests[0].constraint = std::move(constraint);
  begin();
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 0; i < choices_; ++i) {
    requests[i].sampler.seed += i;
    ids.push_back(
        model_.scheduler.submit(std::move(requests[i]), [self = shared_from_this(), i](const ServeEvent& event) {
          self->note_tokens(event);
          self->take(i, event);
        }));
  }
  // Whoever is told may outlive this, and the model.
  reply_->on_gone([ids, weak = weak_from_this()] {
    if (const auto self = weak.lock())
      for (const std::uint64_t id : ids) self->model_.scheduler.cancel(id);
  });
}

void Answer::note_tokens(const ServeEvent& event) {
  if (!event.last()) return reply_->note_tokens({});
  reply_->note_tokens({event.usage.prompt_tokens, event.usage.cached_tokens, event.usage.generated_tokens});
}

}  // namespace snug
