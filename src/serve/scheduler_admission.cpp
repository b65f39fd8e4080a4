// Who is let in, and who gives way: a request comes in when the ledger has room for what it is expected to become.

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/log.hpp"
#include "generate/common_prefix.hpp"
#include "serve/serve_job.hpp"

namespace snug {

namespace {

/// Prefixes shorter than this are read again sooner than waited for.
constexpr std::size_t kWorthSharing = 32;
/// How long an answer becomes, before there were any to learn from.
constexpr std::size_t kFirstGuess = 256, kFewAnswers = 8;
/// Tokens that all at work may write before pages that leave now are gone.
constexpr std::size_t kAhead = 64;
/// A token of an answer costs as much as so many of a prompt.
constexpr double kAnswerCost = 4;
constexpr std::size_t kMostOwners = 4096;

}  // namespace

std::size_t Scheduler::expected_tokens(const Job& job) const {
  std::size_t answer = job.request.max_tokens;
  if (!options_.reserve_longest) {
    // As long as nine of ten of the last ones, or twice what it has become already.
    std::size_t usual = kFirstGuess;
    if (lengths_.size() >= kFewAnswers) {
      std::vector<std::size_t> sorted(lengths_.begin(), lengths_.end());
      const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() * 9 / 10);
      std::nth_element(sorted.begin(), at, sorted.end());
      usual = *at;
    }
    answer = std::min(answer, std::max(usual, 2 * job.generated()));
  }
  return std::min(context_, job.request.prompt.size() + std::min(answer, context_));
}

Bytes Scheduler::free_bytes() const {
  const LedgerReport report = ledger_.report();
  if (report.limit == Ledger::kUnlimited) return Ledger::kUnlimited;
  const Bytes free = report.limit > report.used ? report.limit - report.used : 0;
  // What is kept comes back from the disk as weights do: others keep theirs as long as there is some of it.
  const bool from_others = options_.compute_turn && !prefixes_.next_to_leave();
  const Bytes others = from_others ? options_.compute_turn->others_bytes() : 0;
  return free + others + model_.free_kv_bytes() + (model_.swap() ? model_.swap()->leaving_bytes() : 0);
}

bool Scheduler::has_room(const Job& job, std::size_t held) const {
  const auto growth = [this](const Job& j, std::size_t from) {
    const Bytes then = model_.kv_bytes(expected_tokens(j)), now = model_.kv_bytes(from);
    return then > now ? then - now : 0;
  };
  Bytes wanted = growth(job, held);
  for (const auto* jobs : {&running_, &coming_})
    for (const JobPtr& other : *jobs) wanted += growth(*other, other->fed());
  return wanted <= free_bytes();
}

bool Scheduler::waits_for_prefix(const Job& job) {
  const std::size_t there = prefixes_.longest(job.history);
  for (const JobPtr& other : running_) {
    const std::size_t common = std::min(common_prefix(other->history, job.history), job.history.size() - 1);
    // At a prompt's end its sequence is kept anyhow.
    if (common < there + kWorthSharing || other->fed() >= common) continue;
    if (common < other->history.size()) other->branches.insert(common);
    return true;
  }
  return false;
}

std::unique_ptr<Sequence> Scheduler::beginning_of(const Job& job) {
  auto best = prefixes_.find(job.history);
  for (const JobPtr& other : running_) {
    const std::size_t common =
        std::min({common_prefix(other->history, job.history), job.history.size() - 1, other->fed()});
    if (common < (best ? best->length() : 0) + kWorthSharing) continue;
    auto fork = other->sequence->fork();
    if (fork->truncate(common) > (best ? best->length() : 0)) best = std::move(fork);
  }
  return best ? std::move(best) : model_.new_sequence(context_);
}

void Scheduler::sort_waiting() {
  // Whoever got least, by priority.
  const auto key = [this](const JobPtr& job) {
    return std::tuple(job->request.priority, served_[job->request.owner], job->place);
  };
  std::sort(waiting_.begin(), waiting_.end(), [&](const JobPtr& a, const JobPtr& b) { return key(a) < key(b); });
}

void Scheduler::welcome(const std::string& owner) {
  const std::lock_guard lock(mutex_);
  if (const auto own = under_way_.find(owner); own != under_way_.end() && own->second > 1) return;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [other, count] : under_way_)
    if (other != owner) least = std::min(least, served_[other]);
  if (served_.size() > kMostOwners)
    std::erase_if(served_, [this](const auto& entry) { return !under_way_.contains(entry.first); });
  if (std::isfinite(least)) served_[owner] = std::max(served_[owner], least);
}

void Scheduler::charge(const Job& job, std::size_t tokens) {
  served_[job.request.owner] += static_cast<double>(tokens) * (job.generated() > 0 ? kAnswerCost : 1);
}

void Scheduler::admit() {
  take_arrived();
  if (running_.empty() && coming_.empty()) full_ = false;
  sort_waiting();
  for (std::size_t i = 0; i < waiting_.size();) {
    const JobPtr job = waiting_[i];
    const std::size_t before = waiting_.size();
    if (!job->sequence && (waits_for_prefix(*job) || waits_for_shared(*job)))
      ++i;
    else if (begin(job))
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), job));
    else if (waiting_.size() == before)
      return;  // nobody overtakes
  }
}

bool Scheduler::begin(const JobPtr& job) {
  const auto others = [this] { return running_.size() + coming_.size(); };
  // One that had to give way has had its place taken: one comes in for one that goes.
  if (full_ && others() > 0 && !make_way_for(*job)) return false;
  while (others() >= options_.max_batch)
    if (!make_way_for(*job)) return false;
  // What it will find, unless it has it on the disk: pages there take room as new ones do.
  const auto held = [&] { return job->sequence ? 0 : prefixes_.longest_in_memory(job->history); };
  while (!has_room(*job, held()))
    if (!shed_prefix("a request needs the room") && !make_way_for(*job)) {
      if (others() > 0) return false;
      break;  // alone it may try
    }
  const bool has_own = job->sequence != nullptr;
  while (true) {
    try {
      if (!job->sequence) job->sequence = beginning_of(*job);
      if (job->sequence->swapped()) job->coming = job->sequence->swap_in();
      break;
    } catch (const OutOfBudget& e) {
      if (!has_own) job->sequence = nullptr;
      if (wait_for_leaving() || shed_prefix("a request needs the room")) continue;
      if (others() == 0) finish(job, {}, e.what());
      return false;
    }
  }
  if (job->generated() == 0) job->event.usage.cached_tokens = job->fed();
  if (job->coming)
    coming_.push_back(job);
  else
    start(job);
  return true;
}

void Scheduler::start(const JobPtr& job) {
  job->turn = 0;
  const auto place = std::find_if(running_.begin(), running_.end(), [&](const JobPtr& o) { return o->id > job->id; });
  running_.insert(place, job);
}

void Scheduler::take_arrived() {
  KvSwap* const swap = model_.swap();
  if (!swap) return;
  if (running_.empty() && !coming_.empty()) swap->wait();
  swap->collect();
  std::erase_if(coming_, [this](const JobPtr& job) {
    if (!job->coming->done()) return false;
    const std::string error = job->coming->error();
    job->coming = nullptr;
    if (error.empty()) {
      start(job);
      return true;
    }
    note("failed", fmt::format("request {} is read again: {}", job->id, error));
    job->sequence = nullptr;
    waiting_.push_back(job);
    return true;
  });
}

bool Scheduler::make_way_for(const Job& job) {
  const auto worse = [](const JobPtr& a, const JobPtr& b) {
    return std::tuple(a->request.priority, a->turn, a->id) < std::tuple(b->request.priority, b->turn, b->id);
  };
  const auto last = std::max_element(running_.begin(), running_.end(), worse);
  if (last == running_.end()) return false;
  const int theirs = (*last)->request.priority, own = job.request.priority;
  const bool over = options_.turn > 0 && theirs == own && (*last)->turn >= options_.turn;
  if (theirs <= own && !over) return false;
  const JobPtr leaves = *last;
  give_way(leaves, over ? "its turn is over" : "another comes first");
  if (over) leaves->place = ++places_;
  return true;
}

bool Scheduler::fits_on_disk(const Sequence& sequence) {
  const KvSwap* swap = model_.swap();
  if (!swap) return false;
  while (swap->used_bytes() + sequence.memory_bytes() > swap->space())
    if (!prefixes_.drop_swapped()) return false;
  return true;
}

void Scheduler::give_way(const JobPtr& job, const char* why) {
  std::erase(running_, job);
  const bool swaps = job->fed() > 0 && fits_on_disk(*job->sequence);
  if (swaps)
    job->sequence->swap_out();
  else
    job->sequence = nullptr;
  waiting_.push_back(job);
  note("preempted",
       fmt::format("request {} {}: {}", job->id, swaps ? "went to the disk" : "gave its memory back and waits", why));
  const std::lock_guard lock(mutex_);
  ++stats_.preempted;
}

bool Scheduler::shed_prefix(const char* why) {
  if (options_.shared && options_.shared->let_go()) return true;
  const Sequence* next = prefixes_.next_to_leave();
  if (!next) return false;
  if (fits_on_disk(*next))
    if (const std::size_t tokens = prefixes_.swap_out_next(); tokens > 0) {
      note_left("swapped", tokens, why);
      return true;
    }
  note_left("evicted", prefixes_.drop_next(), why);
  return true;
}

bool Scheduler::wait_for_leaving() {
  KvSwap* const swap = model_.swap();
  if (!swap || swap->leaving_bytes() == 0) return false;
  swap->wait();
  swap->collect();
  return true;
}

void Scheduler::look_ahead() {
  if (!model_.swap() || running_.empty()) return;
  Bytes wanted = 0;
  for (const JobPtr& job : running_) wanted += model_.kv_bytes(job->fed() + kAhead) - model_.kv_bytes(job->fed());
  while (wanted > free_bytes()) {
    if (shed_prefix("answers will need the room")) continue;
    if (running_.size() < 2 || !fits_on_disk(*last_come()->sequence)) return;
    full_ = true;
    give_way(last_come(), "the budget is nearly used");
  }
}

Scheduler::JobPtr Scheduler::last_come() const {
  return *std::max_element(running_.begin(), running_.end(), [](const JobPtr& a, const JobPtr& b) {
    return std::pair(a->request.priority, a->id) < std::pair(b->request.priority, b->id);
  });
}

bool Scheduler::shrink_logits() {
  if (logits_.size() <= running_.size() * model_.config().vocab_size * sizeof(float)) return false;
  logits_ = {};
  return true;
}

void Scheduler::make_room() {
  if (wait_for_leaving() || shrink_logits() || shed_prefix("an answer needs the room") || take_from_task()) return;
  if (running_.size() > 1) {
    full_ = true;
    return give_way(last_come(), "no room in the budget");
  }
  if (coming_.empty()) {
    note("failed", fmt::format("request {} ended: the memory that is left is too small for it", last_come()->id));
    return finish(last_come(), {}, "the memory that is left is too small for this request");
  }
  // Another has taken the room, and will have to give it back.
  model_.swap()->wait();
  take_arrived();
}

}  // namespace snug
