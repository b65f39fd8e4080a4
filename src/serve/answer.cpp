#include "serve/answer.hpp"

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
  std::vector<std::shared_ptr<Constraint>> constraints(choices_);
  for (auto& constraint : constraints)
    if (!kind_.empty()) constraint = model_.constraint(kind_, grammar_);
  begin();
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 0; i < choices_; ++i) {
    requests[i].sampler.seed += i;
    requests[i].constraint = std::move(constraints[i]);
    ids.push_back(
        model_.scheduler.submit(std::move(requests[i]), [self = shared_from_this(), i](const ServeEvent& event) {
          self->note_tokens(event);
          self->take(i, event);
        }));
  }
  reply_->on_gone([ids, &scheduler = model_.scheduler] {
    for (const std::uint64_t id : ids) scheduler.cancel(id);
  });
}

void Answer::note_tokens(const ServeEvent& event) {
  if (!event.last()) return reply_->note_tokens({});
  reply_->note_tokens({event.usage.prompt_tokens, event.usage.cached_tokens, event.usage.generated_tokens});
}

}  // namespace snug
