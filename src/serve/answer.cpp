#include "serve/answer.hpp"

#include <atomic>

#include "serve/openai_api.hpp"

namespace snug {

void Answer::start() {
  // Checked here, before a stream says that all is well.
  model_.scheduler.check(request_);
  if (kind_.empty()) return submit(nullptr);
  auto gone = std::make_shared<std::atomic<bool>>(false);
  reply_->on_gone([gone] { *gone = true; });
  model_.with_grammars([self = shared_from_this(), gone] {
    if (*gone) return;
    try {
      self->submit(self->model_.constraint(self->kind_, self->grammar_));
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

void Answer::submit(std::unique_ptr<Constraint> constraint) {
  std::vector<ServeRequest> requests(choices_, request_);
  for (std::size_t i = 0; i < choices_; ++i) {
    requests[i].sampler.seed += i;
    if (constraint && i > 0) requests[i].constraint = constraint->copy();
  }
  requests[0].constraint = std::move(constraint);
  begin();
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 0; i < choices_; ++i)
    ids.push_back(model_.scheduler.submit(
        std::move(requests[i]), [self = shared_from_this(), i](const ServeEvent& event) { self->take(i, event); }));
  reply_->on_gone([ids, &scheduler = model_.scheduler] {
    for (const std::uint64_t id : ids) scheduler.cancel(id);
  });
}

}  // namespace snug
