#include "serve/scheduler.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/log.hpp"
#include "generate/common_prefix.hpp"
#include "generate/kv_folder.hpp"
#include "serve/serve_job.hpp"

namespace snug {

namespace {

/// Of the last answers, so many say how long the next one may become.
constexpr std::size_t kLengths = 256;
constexpr std::size_t kLeastPromptRows = 32;
constexpr std::size_t kEvents = 20;
constexpr std::size_t kMostSaved = 32;  ///< sequences, from one run to the next
constexpr std::chrono::milliseconds kPublish{200};
constexpr std::chrono::seconds kTogether{2};  ///< events of one kind

/// The chosen token's logarithm of probability, and the likeliest.
ServeToken with_logprobs(std::span<const float> logits, TokenId token, std::size_t top) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - most));
  const float offset = most + static_cast<float>(std::log(sum));
  const auto of = [&](TokenId id) { return TokenLogprob{id, logits[static_cast<std::size_t>(id)] - offset}; };
  ServeToken result{of(token), {}};
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(top, order.size()));
  std::partial_sort(order.begin(), end, order.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  for (auto id = order.begin(); id != end; ++id) result.top.push_back(of(*id));
  return result;
}

}  // namespace

Scheduler::Scheduler(Model& model, Ledger& ledger, SchedulerOptions options)
    : model_(model),
      ledger_(ledger),
      options_(options),
      context_(options.context ? options.context : model.config().trained_context),
      prefixes_(options.max_prefixes, options.eviction),
      thread_([this] { run(); }) {}

void Scheduler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Scheduler::check(const ServeRequest& request) const {
  if (request.prompt.empty()) fail("the prompt is empty");
  if (request.prompt.size() >= context_)
    fail<ContextExceeded>("the prompt has {} tokens; the context of {} leaves no room for an answer",
                          request.prompt.size(), context_);
  for (const TokenId token : request.prompt)
    if (token < 0 || static_cast<std::size_t>(token) >= model_.config().vocab_size)
      fail("token {} is outside the vocabulary of {}", token, model_.config().vocab_size);
}

std::uint64_t Scheduler::submit(ServeRequest request, Sink sink) {
  check(request);
  std::uint64_t id;
  {
    const std::lock_guard lock(mutex_);
    if (stop_) fail("the server stops");
    if (all_under_way_ >= options_.max_waiting + options_.max_batch)
      fail<TooManyRequests>("{} requests are under way: try again later", all_under_way_);
    std::size_t& of_owner = under_way_[request.owner];
    if (options_.max_of_owner > 0 && of_owner >= options_.max_of_owner)
      fail<TooManyRequests>("{} requests of this key are under way, which is the limit", of_owner);
    ++of_owner, ++all_under_way_;
    id = next_id_++;
    fresh_.push_back(std::make_shared<Job>(id, std::move(request), std::move(sink)));
  }
  wake_.notify_one();
  return id;
}

void Scheduler::cancel(std::uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_one();
}

SchedulerStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  looked_ = true;
  wake_.notify_one();
  return stats_;
}

void Scheduler::change_budget(Bytes budget, const std::function<void(Bytes)>& resize) {
  std::packaged_task<void()> order([&] { resize_now(budget, resize); });
  std::future<void> done = order.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stop_) fail("the server stops");
    orders_.push_back(std::move(order));
  }
  wake_.notify_one();
  done.get();
}

void Scheduler::resize_now(Bytes budget, const std::function<void(Bytes)>& resize) {
  const LedgerReport before = ledger_.report();
  const Bytes weights = before.by_tag[static_cast<std::size_t>(Tag::weights)];
  const Bytes kept = kv_view(model_, sequences(), prefixes_).kept;
  // What no eviction could make possible costs nobody anything.
  const bool possible = before.used - weights - std::min(before.used - weights, kept) < budget;
  while (true) {
    try {
      resize(budget);
      return;
    } catch (const IoError&) {
      throw;  // the weights cannot be read
    } catch (const Error&) {
      if (!wait_for_leaving() && (!possible || !shed_prefix("the budget became smaller"))) throw;
    }
  }
}

std::vector<const Sequence*> Scheduler::sequences() const {
  std::vector<const Sequence*> all;
  for (const JobPtr& job : running_) all.push_back(job->sequence.get());
  return all;
}

void Scheduler::load_kept() {
  std::vector<std::string> paths = saved_in_folder(options_.kv_folder, model_);
  if (paths.size() > kMostSaved) paths.erase(paths.begin(), paths.end() - static_cast<std::ptrdiff_t>(kMostSaved));
  for (const std::string& path : paths) {
    // The rest is for those who come.
    if (const LedgerReport report = ledger_.report(); report.used > report.limit / 4 * 3) return;
    try {
      std::vector<TokenId> tokens;
      auto sequence = model_.load_sequence(path, context_, tokens);
      prefixes_.add(std::move(tokens), std::move(sequence));
    } catch (const OutOfBudget&) {
      return;
    } catch (const Error& e) {
      note("files", e.what());
    }
  }
}

void Scheduler::save_kept() {
  std::vector<std::vector<TokenId>> saved;
  while (prefixes_.size() > 0 && saved.size() < kMostSaved) {
    const PrefixStore::Node node = prefixes_.take_newest();
    const auto holds = [&](const std::vector<TokenId>& other) {
      return common_prefix(other, node.tokens) == node.tokens.size();
    };
    if (std::any_of(saved.begin(), saved.end(), holds)) continue;
    try {
      model_.bring_back(*node.sequence);
      save_to_folder(options_.kv_folder, model_, *node.sequence, node.tokens);
      saved.push_back(node.tokens);
    } catch (const Error& e) {
      log(LogLevel::error, "{}", e.what());
    }
  }
}

void Scheduler::run() {
  ComputeTurn* const turn = options_.compute_turn;
  // What does not compute can be done whoever's turn it is, as long as nobody works.
  const auto alone = [turn](auto f) {
    if (turn) turn->begin(false);
    f();
    if (turn) turn->end(false);
  };
  alone([this] {
    if (!options_.kv_folder.empty()) load_kept();
    start_sharing();
    publish();
  });
  while (true) {
    bool computes;
    {
      std::unique_lock lock(mutex_);
      const auto something = [this] {
        return stop_ || looked_ || !fresh_.empty() || !cancelled_.empty() || !tasks_.empty() || !orders_.empty() ||
               shared_ready();
      };
      if (idle())
        wake_.wait(lock, something);
      else if (const auto until = rest_until())
        wake_.wait_until(lock, *until, something);
      if (stop_) break;
      computes = !idle() || !fresh_.empty() || !tasks_.empty();
    }
    const std::string error = turn ? turn->begin(computes) : std::string();
    take_new();
    error.empty() ? work(computes) : fail_all(error);
    publish();
    if (turn) {
      const std::lock_guard lock(mutex_);
      computes = !stop_ && (!idle() || !fresh_.empty() || !tasks_.empty());
    }
    if (turn) turn->end(computes);
  }
  alone([this] {
    take_new();
    fail_all("the server stops");
    if (options_.shared) options_.shared->stop();
    if (!options_.kv_folder.empty()) save_kept();
  });
}

void Scheduler::work(bool computes) {
  work_on_shared();
  check_deadlines();
  if (computes) {
    admit();
    look_ahead();
    if (!running_.empty()) step();
    work_on_task();
  }
  if (idle() && model_.swap())
    while (model_.swap()->wait()) model_.swap()->collect();
}

void Scheduler::fail_all(const std::string& why) {
  for (auto* jobs : {&running_, &coming_})
    while (!jobs->empty()) finish(JobPtr(jobs->front()), {}, why);
  while (!waiting_.empty()) finish(JobPtr(waiting_.front()), {}, why);
  fail_tasks(why);
}

bool Scheduler::give_up_memory() {
  if (logits_.size() > 0) {
    logits_ = {};
    return true;
  }
  if (give_up_kept("another model needs the room") || take_from_task()) return true;
  if (running_.empty() && !coming_.empty()) take_arrived();  // what is on its way back can only go once it is there
  if (running_.empty()) return false;
  full_ = true;
  give_way(last_come(), "another model needs the room");
  return true;
}

void Scheduler::publish() {
  // Memory of sequences is added up page by page: not for every token.
  const Time now = std::chrono::steady_clock::now();
  std::vector<RequestStatus> requests;
  if (!idle() && now - published_ < kPublish) return;
  published_ = now;
  bool looked;
  {
    const std::lock_guard lock(mutex_);
    looked = std::exchange(looked_, false);
  }
  KvView kv;
  if (looked) kv = kv_view(model_, sequences(), prefixes_);
  for (const JobPtr& job : running_) requests.push_back(job->status(false));
  for (const JobPtr& job : coming_) requests.push_back(job->status(true));
  for (const JobPtr& job : waiting_) requests.push_back(job->status(true));
  const std::lock_guard lock(mutex_);
  if (const KvSwap* swap = model_.swap()) {
    stats_.swap_used = swap->used_bytes();
    stats_.swap_written = swap->stats().written, stats_.swap_read = swap->stats().read;
  }
  stats_.waiting = waiting_.size() + coming_.size(), stats_.running = running_.size(),
  stats_.prefixes = prefixes_.size();
  stats_.requests = std::move(requests);
  if (looked) stats_.kv = std::move(kv);
}

void Scheduler::note(std::string_view kind, std::string what) {
  log(LogLevel::info, "{}", what);
  add_event({std::chrono::steady_clock::now(), kind, std::move(what)});
}

void Scheduler::add_event(SchedulerEvent event) {
  const std::lock_guard lock(mutex_);
  std::deque<SchedulerEvent>& events = stats_.events;
  // Those that go together are one, or nothing else would be left to see.
  if (!events.empty() && events.front().kind == event.kind && event.when - events.front().when < kTogether) {
    const SchedulerEvent& last = events.front();
    const bool same = (event.kind == "evicted" || event.kind == "swapped") && last.what == event.what;
    if (same) event.times += last.times, event.tokens += last.tokens;
    // Of several budgets the last one counts.
    if (same || event.kind == "budget") events.pop_front();
  }
  events.push_front(std::move(event));
  if (events.size() > kEvents) events.pop_back();
}

void Scheduler::note_left(std::string_view kind, std::size_t tokens, std::string why) {
  log(LogLevel::info, "a kept beginning of {} tokens was {}: {}", tokens, kind, why);
  add_event({std::chrono::steady_clock::now(), kind, std::move(why), 1, tokens});
}

void Scheduler::keep(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence) {
  if (options_.shared) options_.shared->offer(tokens);
  if (const std::size_t gone = prefixes_.add(std::move(tokens), std::move(sequence)); gone > 0)
    note_left("evicted", gone, fmt::format("at most {} are kept", options_.max_prefixes));
}

void Scheduler::take_new() {
  std::vector<JobPtr> fresh;
  std::vector<std::uint64_t> cancelled;
  std::deque<std::packaged_task<void()>> orders;
  {
    const std::lock_guard lock(mutex_);
    fresh.swap(fresh_);
    cancelled.swap(cancelled_);
    orders.swap(orders_);
  }
  for (auto& order : orders) order();
  for (const JobPtr& job : fresh) {
    welcome(job->request.owner);
    job->place = ++places_;
    waiting_.push_back(job);
  }
  for (const std::uint64_t id : cancelled)
    if (const JobPtr job = find([id](const Job& j) { return j.id == id; })) finish(job, StopReason::cancelled);
}

void Scheduler::check_deadlines() {
  const Time now = std::chrono::steady_clock::now();
  const auto late = [now](const Job& j) {
    return j.request.deadline.count() > 0 && now - j.arrived > j.request.deadline;
  };
  while (const JobPtr job = find(late))
    finish(job, {}, fmt::format("it was not done within {} ms", job->request.deadline.count()));
}

std::size_t Scheduler::prompt_rows(std::size_t decoding) const {
  const std::size_t most = model_.max_rows() > decoding ? model_.max_rows() - decoding : 0;
  if (decoding == 0 || row_seconds_ == 0) return most;
  const double rows = std::chrono::duration<double>(options_.most_step).count() / row_seconds_;
  return std::min(most, std::max(kLeastPromptRows, static_cast<std::size_t>(rows)));
}

void Scheduler::step() {
  std::vector<Row> rows;
  std::vector<std::pair<JobPtr, std::size_t>> parts;  // rows of each
  const auto add = [&](const JobPtr& job, std::size_t count) {
    const std::size_t first = job->fed();
    for (std::size_t i = first; i < first + count; ++i)
      rows.push_back({job->history[i], job->sequence.get(), i + 1 == job->history.size()});
    parts.emplace_back(job, count);
  };
  for (const JobPtr& job : running_)
    if (job->left() == 1 && rows.size() < model_.max_rows()) add(job, 1);
  const std::size_t decoding = rows.size();
  std::size_t room = prompt_rows(decoding);
  for (const JobPtr& job : running_) {
    if (job->left() == 1 || room == 0) continue;
    std::size_t count = std::min({job->left(), room, model_.most_rows(*job->sequence)});
    if (const auto branch = job->branches.upper_bound(job->fed()); branch != job->branches.end())
      count = std::min(count, *branch - job->fed());
    add(job, count);
    room -= count;
  }
  const std::size_t vocab = model_.config().vocab_size;
  const auto wanted =
      static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.wants_logits; }));
  const Time start = std::chrono::steady_clock::now();
  std::span<float> logits;
  try {
    if (const Bytes bytes = wanted * vocab * sizeof(float); logits_.size() < bytes) {
      logits_ = {};
      logits_ = Buffer(ledger_, Tag::activations, bytes);
    }
    logits = {logits_.as<float>(), wanted * vocab};
    model_.forward(rows, logits);
  } catch (const OutOfBudget&) {
    return make_room();
  } catch (const std::exception& e) {
    log(LogLevel::error, "a step failed: {}", e.what());
    for (const auto& [job, count] : parts) finish(job, {}, e.what());
    return;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (const std::size_t read = rows.size() - decoding; read >= kLeastPromptRows) {
    const double each = seconds / static_cast<double>(read);
    row_seconds_ = row_seconds_ == 0 ? each : 0.8 * row_seconds_ + 0.2 * each;
  }
  {
    const std::lock_guard lock(mutex_);
    stats_.busy_seconds += seconds;
  }
  std::size_t next = 0;
  for (const auto& [job, count] : parts) {
    const bool chooses = job->left() == 0;
    after_step(job, count, chooses ? logits.subspan(next++ * vocab, vocab) : std::span<float>());
  }
}

void Scheduler::after_step(const JobPtr& job, std::size_t rows, std::span<float> logits) {
  charge(*job, rows);
  const bool read_prompt = job->generated() == 0 && job->left() == 0;
  if ((read_prompt && !job->request.kept) || job->branches.contains(job->fed())) {
    try {
      keep(job->held(), job->sequence->fork());
    } catch (const OutOfBudget&) {
      // Then it is not kept.
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (job->generated() == 0) stats_.prompt_tokens += rows;
    if (read_prompt) stats_.cached_tokens += job->event.usage.cached_tokens;
  }
  if (logits.empty()) return;
  try {
    choose_token(*job, logits);
  } catch (const std::exception& e) {
    return finish(job, {}, e.what());
  }
  ServeEvent& event = job->event;
  const TokenId token = job->history.back();
  std::optional<StopReason> reason;
  if ((!job->request.ignore_end || job->request.constraint) && model_.tokenizer().is_end(token)) {
    reason = StopReason::end_of_text;
  } else {
    event.text += job->filter.push(job->decoder.push(model_.tokenizer().piece(token)));
    event.usage.generated_tokens = job->generated();
    {
      const std::lock_guard lock(mutex_);
      ++stats_.generated_tokens;
    }
    if (job->filter.stopped)
      reason = StopReason::stop_string;
    else if (job->request.constraint && job->request.constraint->ended())
      reason = StopReason::end_of_text;
    else if (job->generated() >= job->request.max_tokens)
      reason = StopReason::max_tokens;
    else if (job->history.size() >= context_)
      reason = StopReason::context_full;
  }
  ++job->turn;
  if (reason) return finish(job, reason);
  if (event.text.empty()) return;
  event.usage.prompt_tokens = job->request.prompt.size();
  job->sink(event);
  event.text.clear(), event.tokens.clear();
}

void Scheduler::choose_token(Job& job, std::span<float> logits) {
  Constraint* constraint = job.request.constraint.get();
  if (constraint) constraint->apply(logits);
  const TokenId token = job.sampler.sample(logits, job.history);
  job.event.tokens.push_back(job.request.logprobs ? with_logprobs(logits, token, *job.request.logprobs)
                                                  : ServeToken{{token, 0}, {}});
  job.history.push_back(token);
  if (constraint && !model_.tokenizer().is_end(token)) constraint->take(token);
}

void Scheduler::finish(const JobPtr& job, std::optional<StopReason> reason, std::string error) {
  ServeEvent& event = job->event;
  if (reason != StopReason::stop_string) event.text += job->filter.push(job->decoder.finish());
  if (!job->filter.stopped) event.text += job->filter.finish();
  if (job->filter.stopped && reason) reason = StopReason::stop_string;
  event.reason = reason;
  if (reason == StopReason::stop_string) event.stop = job->filter.found;
  event.error = std::move(error);
  event.usage.prompt_tokens = job->request.prompt.size();
  // What is on its way is not worth the wait.
  if (job->sequence && job->fed() > 0 && event.error.empty() && !job->coming && !job->request.kept) {
    std::vector<TokenId> held = job->held();  // before the sequence moves
    keep(std::move(held), std::move(job->sequence));
  }
  std::erase(running_, job);
  std::erase(coming_, job);
  std::erase(waiting_, job);
  full_ = task_waits_ = false;
  if (reason && *reason != StopReason::cancelled) {
    lengths_.push_back(job->generated());
    if (lengths_.size() > kLengths) lengths_.pop_front();
  }
  {
    const std::lock_guard lock(mutex_);
    ++(reason ? stats_.finished : stats_.failed);
    --all_under_way_;
    if (const auto owner = under_way_.find(job->request.owner); --owner->second == 0) under_way_.erase(owner);
  }
  job->sink(event);
}

}  // namespace snug
