#pragma once
/// Many requests on one model: continuous batching (Orca; prompts in chunks between decodes, as in Sarathi-Serve), with
/// the ledger deciding who is let in, for an answer as long as answers were (S3, arXiv 2306.06000). Who gives way
/// leaves memory for the disk (FastSwitch, arXiv 2411.18424), and so does what is kept between requests (Pensieve,
/// arXiv 2312.05516).
///
/// scheduler.cpp: the thread and its steps; scheduler_admission.cpp: who is let in, and who gives way;
/// scheduler_shared.cpp: what other replicas have.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/buffer.hpp"
#include "generate/session.hpp"
#include "serve/compute_turn.hpp"
#include "serve/kv_view.hpp"
#include "serve/prefix_store.hpp"
#include "serve/scheduler_task.hpp"
#include "serve/shared_prefixes.hpp"
#include "text/constraint.hpp"

namespace snug {

struct ServeRequest {
  std::vector<TokenId> prompt;
  SamplerOptions sampler;
  std::size_t max_tokens = 512;
  std::vector<std::string> stop;
  bool ignore_end = false;
  std::optional<std::size_t> logprobs;     ///< of each token, beside so many of the likeliest
  std::shared_ptr<Constraint> constraint;  ///< what the answer must follow, its own; null: nothing
  int priority = 0;                        ///< those of a lower one come first, and may take others' memory
  std::string owner;                       ///< whose it is: owners get equal shares
  std::chrono::milliseconds deadline{0};   ///< it fails when it takes longer; 0: it may take any time
  /// Lengths at which later requests leave this prompt, where that is known beforehand: its sequence is kept there and
  /// nowhere else.
  std::optional<std::vector<std::size_t>> kept;
};

struct TokenLogprob {
  TokenId token;
  float logprob;
};
/// A token that was chosen.
struct ServeToken {
  TokenLogprob chosen{};
  std::vector<TokenLogprob> top;  ///< with ServeRequest::logprobs: the likeliest
};

struct ServeUsage {
  std::size_t prompt_tokens = 0;
  std::size_t cached_tokens = 0;  ///< of them were there already
  std::size_t generated_tokens = 0;
};

/// What a request has come to.
struct ServeEvent {
  std::string text;                  ///< whole characters that have been added
  std::vector<ServeToken> tokens;    ///< those added since the last event; a stop string's are among them
  std::optional<StopReason> reason;  ///< of the last event
  std::string stop;                  ///< of StopReason::stop_string: which
  std::string error;                 ///< why it ended without a reason
  ServeUsage usage;

  bool last() const { return reason || !error.empty(); }
};

/// A prompt that leaves no room in the context.
class ContextExceeded : public Error {
public:
  using Error::Error;
};

/// An owner, or all together, have too many requests under way.
class TooManyRequests : public Error {
public:
  using Error::Error;
};

struct SchedulerOptions {
  std::size_t context = 0;                   ///< of each sequence; 0: what the model was trained for
  std::size_t max_batch = 64;                ///< sequences at work at a time
  std::size_t max_prefixes = 256;            ///< sequences that are kept
  Eviction eviction = Eviction::least_cost;  ///< which of them go first
  std::size_t max_waiting = 4096;            ///< further requests are turned away
  std::size_t max_of_owner = 0;              ///< requests of an owner that are under way; 0: any number
  bool reserve_longest = false;              ///< room is kept for the longest answer that a request allows
  std::size_t turn = 0;                      ///< tokens, then one gives way to who waits; 0: only when it must
  std::string kv_folder{};                   ///< where they are kept from one run to the next; "": nowhere
  std::shared_ptr<SharedPrefixes> shared{};  ///< what other replicas have; null: there are none
  std::chrono::milliseconds most_step{200};  ///< prompts leave steps in which others decode about so short
  ComputeTurn* compute_turn = nullptr;       ///< of several schedulers; outlives it
};

/// One that waits or is at work.
struct RequestStatus {
  std::uint64_t id;
  bool waits, swapped;
  std::size_t prompt, read, written;  ///< tokens; read: of the prompt
  Bytes bytes;                        ///< of its sequence, shared pages too
};
/// Something that gave way, and why.
struct SchedulerEvent {
  std::chrono::steady_clock::time_point when;
  std::string_view kind;              ///< "evicted", "swapped", "preempted", "failed", "budget", "files"
  std::string what;                   ///< evicted, swapped: why
  std::size_t times = 1, tokens = 0;  ///< the same: so many beginnings, with so many tokens
};

struct SchedulerStats {
  std::size_t waiting = 0, running = 0, prefixes = 0;
  std::uint64_t finished = 0, failed = 0, preempted = 0, prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  Bytes swap_used = 0, swap_written = 0, swap_read = 0;  ///< of the disk
  double busy_seconds = 0;                               ///< in forward()
  std::vector<RequestStatus> requests;
  std::deque<SchedulerEvent> events;  ///< the last ones, the newest first
  KvView kv;                          ///< as it was shortly after somebody looked before
};

class Scheduler {
public:
  /// Called on the scheduler's thread: must not block, nor throw.
  using Sink = std::function<void(const ServeEvent&)>;

  Scheduler(Model& model, Ledger& ledger, SchedulerOptions options);
  ~Scheduler() { stop(); }
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  std::size_t context() const { return context_; }
  /// Throws ContextExceeded; Error when the prompt is empty or has what is no token.
  void check(const ServeRequest& request) const;
  /// The same.
  std::uint64_t submit(ServeRequest request, Sink sink);
  /// Does it beside the requests (scheduler_tasks.cpp). Throws Error when the server stops.
  void submit(std::shared_ptr<SchedulerTask> task);
  /// Ends it with StopReason::cancelled, if it is still under way.
  void cancel(std::uint64_t id);
  SchedulerStats stats() const;
  /// Null: there are no other replicas.
  const SharedPrefixes* shared() const { return options_.shared.get(); }
  /// Something happened that is to be among the events. Thread-safe.
  void note(std::string_view kind, std::string what);
  /// Changes the ledger's limit by `resize` between two steps. Where that throws because kept beginnings take too much,
  /// they leave memory. Throws what it throws. Thread-safe.
  void change_budget(Bytes budget, const std::function<void(Bytes)>& resize);
  /// For another scheduler: takes memory that this one can do without for a while. Returns false when there is none.
  /// REQUIRES: the caller has the turn (SchedulerOptions::compute_turn).
  bool give_up_memory();
  /// The same of kept beginnings alone.
  bool give_up_kept(const char* why) { return wait_for_leaving() || shed_prefix(why); }
  /// Requests that are under way fail, and so will all others. What they answered to is let go.
  void stop();

private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;
  using Time = std::chrono::steady_clock::time_point;

  void run();
  void work(bool computes);
  void fail_all(const std::string& why);
  void load_kept();
  void save_kept();
  void take_new();
  void check_deadlines();
  void step();
  /// Rows of prompts beside `decoding` rows.
  std::size_t prompt_rows(std::size_t decoding) const;
  void after_step(const JobPtr& job, std::size_t rows, std::span<float> logits);
  void choose_token(Job& job, std::span<float> logits);
  void work_on_task();
  bool take_from_task();
  void fail_tasks(const std::string& why);
  void note_left(std::string_view kind, std::size_t tokens, std::string why);
  void add_event(SchedulerEvent event);
  void keep(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence);
  void resize_now(Bytes budget, const std::function<void(Bytes)>& resize);
  std::vector<const Sequence*> sequences() const;
  void publish();
  void finish(const JobPtr& job, std::optional<StopReason> reason, std::string error = {});
  /// One under way; null: none is like that.
  template <class F>
  JobPtr find(F&& is) const {
    for (const auto* jobs : {&running_, &coming_})
      for (const JobPtr& job : *jobs)
        if (is(*job)) return job;
    for (const JobPtr& job : waiting_)
      if (is(*job)) return job;
    return nullptr;
  }
  bool idle() const { return waiting_.empty() && coming_.empty() && running_.empty(); }

  // Of scheduler_shared.cpp.
  void start_sharing();
  void work_on_shared();
  bool shared_ready() const { return options_.shared && options_.shared->ready(); }
  /// Of a waiting request: whether others may have read its prompt, and it is worth waiting for that.
  bool waits_for_shared(Job& job);
  /// When all that there is to do is to wait for that: until when.
  std::optional<Time> rest_until() const;

  // Of scheduler_admission.cpp.
  void admit();
  /// Whether one that waits may begin: its sequence is in memory then, or comes.
  bool begin(const JobPtr& job);
  /// Those that were read back go on.
  void take_arrived();
  void start(const JobPtr& job);
  /// Those that wait, in the order in which they are let in.
  void sort_waiting();
  /// Of a waiting request: whether another's prompt is being read up to where the two part.
  bool waits_for_prefix(const Job& job);
  /// What is there of it already, else an empty sequence.
  std::unique_ptr<Sequence> beginning_of(const Job& job);
  std::size_t expected_tokens(const Job& job) const;
  /// Bytes that are free, will be soon, or could be had from what is kept.
  Bytes free_bytes() const;
  /// For this one to grow as expected beside those at work, when `held` of its tokens are in memory.
  bool has_room(const Job& job, std::size_t held) const;
  /// Its turn is over, or its priority lower than the other's: it leaves for the other.
  bool make_way_for(const Job& job);
  void give_way(const JobPtr& job, const char* why);
  /// Before memory is short: pages leave while others go on.
  void look_ahead();
  JobPtr last_come() const;
  /// A step found no room.
  void make_room();
  /// To what those at work need. Returns false when there are no more.
  bool shrink_logits();
  /// A kept sequence leaves memory. Returns false when there is none.
  bool shed_prefix(const char* why);
  /// For the first pages that are on their way to the disk. Returns false when there are none.
  bool wait_for_leaving();
  bool fits_on_disk(const Sequence& sequence);
  void charge(const Job& job, std::size_t tokens);
  /// An owner who comes anew has no credit for the time before.
  void welcome(const std::string& owner);

  Model& model_;
  Ledger& ledger_;
  SchedulerOptions options_;
  std::size_t context_;

  // Of the scheduler's thread.
  std::deque<JobPtr> waiting_;
  std::vector<JobPtr> coming_;   ///< their sequences are being read back
  std::vector<JobPtr> running_;  ///< by arrival
  bool full_ = false;            ///< one had to give way: nobody comes in before another has finished
  bool task_waits_ = false;      ///< the first task found no room: not before another has finished
  PrefixStore prefixes_;
  std::map<std::string, double> served_;  ///< tokens of each owner (VTC, arXiv 2401.00588)
  std::uint64_t places_ = 0;              ///< in the order of those that wait
  Buffer logits_;
  double row_seconds_ = 0;           ///< what a row of a prompt takes
  std::deque<std::size_t> lengths_;  ///< of the last answers
  Time published_{};

  mutable std::mutex mutex_;
  mutable std::condition_variable wake_;
  std::vector<JobPtr> fresh_;
  std::deque<std::shared_ptr<SchedulerTask>> tasks_;  ///< the first is under way
  std::vector<std::uint64_t> cancelled_;
  std::map<std::string, std::size_t> under_way_;  ///< requests of each owner
  std::size_t all_under_way_ = 0;
  std::deque<std::packaged_task<void()>> orders_;  ///< between two steps
  mutable bool looked_ = false;                    ///< somebody asked for stats() since publish()
  std::uint64_t next_id_ = 1;
  bool stop_ = false;
  SchedulerStats stats_;
  std::thread thread_;
};

}  // namespace snug
