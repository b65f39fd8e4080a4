#pragma once
/// Answers a batch: each line goes through the very handler that an HTTP request would, in the order of a plan.

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>

#include "serve/api.hpp"
#include "serve/batch_input.hpp"
#include "serve/batch_journal.hpp"
#include "serve/batch_plan.hpp"

namespace snug {

struct BatchProgress {
  std::size_t requests = 0, done = 0;  ///< done: those of earlier runs too
  std::size_t planned = 0;             ///< prompts that are known, while `planning`
  bool planning = false;
  double seconds = 0;
  std::optional<double> seconds_left;
  std::uint64_t read = 0, shared = 0, generated = 0;  ///< tokens
};

struct BatchOptions {
  bool by_prefix = true;   ///< else in the order of the input
  std::size_t ahead = 64;  ///< requests that wait in the scheduler
  std::string folder;      ///< for a temporary file
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(const BatchProgress&)> progress;  ///< called a few times a second
};

struct BatchSummary {
  BatchProgress last;
  std::size_t before = 0;    ///< had an answer when it began
  std::size_t answered = 0;  ///< with status 200, in this run
  std::size_t failed = 0;    ///< otherwise
  bool cancelled = false;    ///< there is no OUT yet
  double plan_seconds = 0;
  BatchPlan plan;  ///< without its order
};

class Batch {
public:
  /// Hands a request to its handler on the caller's thread (Api::answer).
  using Answer = std::function<void(const HttpRequest&, const std::shared_ptr<HttpReply>&)>;

  /// `journal` has begun. Everything must live until the Batch is gone; its end is the scheduler's end.
  Batch(ServedModel& model, Answer answer, const BatchInput& input, BatchJournal& journal, BatchOptions options);
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  /// Answers what the journal does not have; then the journal finishes. Throws IoError.
  BatchSummary run();

private:
  struct Inbox;
  class Reply;
  struct Prompts;
  struct Step {
    std::size_t index;       ///< of the line
    std::size_t tokens = 1;  ///< that it is expected to take
    std::optional<std::vector<std::size_t>> kept{};
  };

  bool cancelled() const { return options_.cancel && *options_.cancel; }
  void plan();
  void answer_all();
  /// Hands a line to its handler; what is no request is answered here.
  void start(Step& step);
  bool before_submit(ServeRequest& request, std::size_t choices);
  /// Writes down what has been answered, after waiting for it at most so long.
  void collect(std::chrono::milliseconds most);
  void report();

  ServedModel& model_;
  Answer answer_;
  const BatchInput& input_;
  BatchJournal& journal_;
  BatchOptions options_;
  std::shared_ptr<Inbox> inbox_;
  std::vector<Step> steps_;
  std::size_t in_flight_ = 0;
  Step* step_ = nullptr;              ///< what start() is about
  std::shared_ptr<Reply> reply_;      ///< where it will be answered
  std::unique_ptr<Prompts> prompts_;  ///< while the order is planned
  std::chrono::steady_clock::time_point began_{}, reported_{};
  double plan_tokens_ = 0;  ///< of all steps
  double tokens_done_ = 0;  ///< of those that have been answered
  BatchSummary summary_;
};

}  // namespace snug
