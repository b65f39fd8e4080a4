// What other replicas have read: waited for where that is worth it, and told of what was read here.

#include <algorithm>

#include "serve/serve_job.hpp"

namespace snug {

void Scheduler::start_sharing() {
  if (!options_.shared) return;
  const auto wake = [this] {
    // Who looks whether there is something either sees it or is woken.
    {
      const std::lock_guard lock(mutex_);
    }
    wake_.notify_one();
  };
  options_.shared->start(model_, ledger_, context_, wake, [this](const std::string& what) { note("shared", what); });
}

void Scheduler::work_on_shared() {
  if (!options_.shared) return;
  options_.shared->work(prefixes_, [this](Bytes bytes) {
    const KvSwap* swap = model_.swap();
    while (free_bytes() < bytes)
      if (!shed_prefix("what other replicas have needs the room")) return false;
    while (swap && free_bytes() - swap->leaving_bytes() < bytes)
      if (!wait_for_leaving()) return false;
    return true;
  });
}

bool Scheduler::waits_for_shared(Job& job) {
  if (!options_.shared || job.request.kept) return false;
  if (!job.fetch && !job.asked) {
    job.fetch = options_.shared->ask(job.history, prefixes_.longest(job.history));
    job.asked = job.fetch != nullptr;
  }
  if (!job.fetch) return false;
  if (options_.shared->pending(*job.fetch)) return true;
  job.fetch = nullptr;
  return false;
}

std::optional<Scheduler::Time> Scheduler::rest_until() const {
  if (!running_.empty() || !coming_.empty()) return {};
  std::optional<Time> until;
  for (const JobPtr& job : waiting_) {
    if (!job->fetch) return {};
    Time end = options_.shared->deadline(*job->fetch);
    if (job->request.deadline.count() > 0) end = std::min(end, job->arrived + job->request.deadline);
    until = std::min(until.value_or(end), end);
  }
  return until;
}

}  // namespace snug
