// The scheduler's tasks: pieces of other work between two steps.

#include <algorithm>

#include "serve/scheduler.hpp"

namespace snug {

void Scheduler::submit(std::shared_ptr<SchedulerTask> task) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) fail("the server stops");
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Scheduler::work_on_task() {
  std::shared_ptr<SchedulerTask> task;
  {
    const std::lock_guard lock(mutex_);
    if (tasks_.empty() || (task_waits_ && !running_.empty())) return;
    task = tasks_.front();
  }
  const Time start = std::chrono::steady_clock::now();
  bool more = false;
  std::string error;
  try {
    more = task->step(model_, prefixes_, std::max<std::size_t>(1, prompt_rows(running_.size())));
  } catch (const OutOfBudget& e) {
    if (wait_for_leaving() || shed_prefix("embeddings or a session need the room")) return;
    const bool gave = task->give_back();
    // Requests come first; what is left when nobody is at work is all there will ever be.
    more = !running_.empty() || (gave && !task_waits_);
    task_waits_ = true;
    error = e.what();
  } catch (const std::exception& e) {
    error = e.what();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!more && !error.empty()) task->fail(error);
  if (!more) task_waits_ = false;
  const std::lock_guard lock(mutex_);
  stats_.busy_seconds += seconds;
  if (!more) tasks_.pop_front();
}

bool Scheduler::take_from_task() {
  std::shared_ptr<SchedulerTask> task;
  {
    const std::lock_guard lock(mutex_);
    if (!tasks_.empty()) task = tasks_.front();
  }
  if (!task || !task->give_back()) return false;
  task_waits_ = true;
  note("preempted", "what is beside the requests gave its memory back: no room in the budget");
  return true;
}

void Scheduler::fail_tasks(const std::string& why) {
  std::deque<std::shared_ptr<SchedulerTask>> left;
  {
    const std::lock_guard lock(mutex_);
    left.swap(tasks_);
  }
  for (const auto& task : left) task->fail(why);
}

}  // namespace snug
