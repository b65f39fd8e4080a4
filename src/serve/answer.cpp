#include "serve/answer.hpp"

namespace snug {

void Answer::start() {
  // Checked here, before a stream says that all is well.
  model_.scheduler.check(request_);
  if (model_.before_submit && !model_.before_submit(request_, choices_)) return;
  std::vector<std::shared_ptr<Constraint>> constraints(choices_);
  for (auto& constraint : constraints)
    if (!kind_.empty()) constraint = model_.constraint(kind_, grammar_);
  begin();
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 0; i < choices_; ++i) {
    ServeRequest request = request_;
    request.sampler.seed += i;
    request.constraint = std::move(constraints[i]);
    ids.push_back(model_.scheduler.submit(
        std::move(request), [self = shared_from_this(), i](const ServeEvent& event) { self->take(i, event); }));
  }
  reply_->on_gone([ids, &scheduler = model_.scheduler] {
    for (const std::uint64_t id : ids) scheduler.cancel(id);
  });
}

}  // namespace snug
