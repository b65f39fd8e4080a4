#pragma once
/// Many requests on one model: continuous batching (Orca; prompts in chunks between decodes, as in Sarathi-Serve), with
/// the ledger deciding who is let in.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "generate/session.hpp"
#include "serve/kv_view.hpp"
#include "serve/prefix_store.hpp"
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

struct SchedulerOptions {
  std::size_t context = 0;                   ///< of each sequence; 0: what the model was trained for
  std::size_t max_batch = 64;                ///< sequences at work at a time
  std::size_t max_prefixes = 256;            ///< sequences that are kept
  std::string kv_folder{};                   ///< where they are kept from one run to the next; "": nowhere
  std::chrono::milliseconds most_step{200};  ///< prompts leave steps in which others decode about so short
};

/// One that waits or is at work.
struct RequestStatus {
  std::uint64_t id;
  bool waits;
  std::size_t prompt, read, written;  ///< tokens; read: of the prompt
  Bytes bytes;                        ///< of its sequence, shared pages too
};
/// Something that gave way, and why.
struct SchedulerEvent {
  std::chrono::steady_clock::time_point when;
  std::string_view kind;              ///< "evicted", "preempted", "failed", "budget", "files"
  std::string what;                   ///< evicted: why
  std::size_t times = 1, tokens = 0;  ///< evicted: so many beginnings, with so many tokens
};

struct SchedulerStats {
  std::size_t waiting = 0, running = 0, prefixes = 0;
  std::uint64_t finished = 0, failed = 0, preempted = 0, prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double busy_seconds = 0;  ///< in forward()
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
  /// Ends it with StopReason::cancelled, if it is still under way.
  void cancel(std::uint64_t id);
  SchedulerStats stats() const;
  /// Something happened that is to be among the events. Thread-safe.
  void note(std::string_view kind, std::string what);
  /// Changes the ledger's limit by `resize` between two steps. Where that throws because kept beginnings take too much,
  /// they go, the one used least recently first. Throws what it throws. Thread-safe.
  void change_budget(Bytes budget, const std::function<void(Bytes)>& resize);
  /// Requests that are under way fail, and so will all others. What they answered to is let go.
  void stop();

private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;
  using Time = std::chrono::steady_clock::time_point;

  void run();
  void load_kept();
  void save_kept();
  void take_new();
  void admit();
  /// Of a waiting request: whether another's prompt is being read up to where the two part.
  bool waits_for_prefix(const Job& job);
  /// What is there of it already, else an empty sequence.
  std::unique_ptr<Sequence> beginning_of(const Job& job);
  bool has_room(const Job& job) const;
  void step();
  /// Rows of prompts beside `decoding` rows.
  std::size_t prompt_rows(std::size_t decoding) const;
  void after_step(const JobPtr& job, std::size_t rows, std::span<float> logits);
  void choose_token(Job& job, std::span<float> logits);
  void make_room();
  bool drop_prefix(const char* why);
  void note_evicted(std::size_t tokens, std::string why);
  void add_event(SchedulerEvent event);
  void keep(std::vector<TokenId> tokens, std::unique_ptr<Sequence> sequence);
  void resize_now(Bytes budget, const std::function<void(Bytes)>& resize);
  std::vector<const Sequence*> sequences() const;
  void publish();
  void finish(const JobPtr& job, std::optional<StopReason> reason, std::string error = {});
  std::size_t expected_tokens(const Job& job) const;

  Model& model_;
  Ledger& ledger_;
  SchedulerOptions options_;
  std::size_t context_;

  // Of the scheduler's thread.
  std::deque<JobPtr> waiting_;
  std::vector<JobPtr> running_;  ///< by arrival
  bool full_ = false;            ///< one had to give way: nobody comes in before another has finished
  PrefixStore prefixes_;
  std::vector<float> logits_;
  double row_seconds_ = 0;           ///< what a row of a prompt takes
  std::deque<std::size_t> lengths_;  ///< of the last answers
  Time published_{};

  mutable std::mutex mutex_;
  mutable std::condition_variable wake_;
  std::vector<JobPtr> fresh_;
  std::vector<std::uint64_t> cancelled_;
  std::deque<std::packaged_task<void()>> orders_;  ///< between two steps
  mutable bool looked_ = false;                    ///< somebody asked for stats() since publish()
  std::uint64_t next_id_ = 1;
  bool stop_ = false;
  SchedulerStats stats_;
  std::thread thread_;
};

}  // namespace snug
