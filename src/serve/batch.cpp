#include "serve/batch.hpp"

#include <algorithm>

#include "serve/openai_api.hpp"
#include "serve/request_fields.hpp"
#include "serve/token_file.hpp"

namespace snug {

namespace {

using Clock = std::chrono::steady_clock;

/// What is taken for the length of an answer that may be as long as it likes.
constexpr std::size_t kUsualAnswer = 256;
/// Results are written together: the disk is asked for each time.
constexpr std::size_t kTogether = 16;
constexpr std::chrono::milliseconds kWait{100}, kReport{200};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string json_text(std::string_view text) {
  return dump(Json(std::string(text)));
}

std::string result_line(const std::string& custom_id, int status, const std::string& body) {
  return fmt::format(
      R"({{"id":"batch_req_{:016x}","custom_id":{},"response":{{"status_code":{},"request_id":"req_{:016x}","body":{}}},"error":null}})",
      random_seed(), json_text(custom_id), status, random_seed(), body);
}

std::string error_line(const BatchLineError& e) {
  return dump({{"id", fmt::format("batch_req_{:016x}", random_seed())},
               {"custom_id", e.custom_id ? Json(*e.custom_id) : Json()},
               {"response", nullptr},
               {"error", {{"code", e.code}, {"message", e.what()}}}});
}

}  // namespace

/// Outlives the batch when answers still come.
struct Batch::Inbox {
  struct Result {
    std::size_t index, tokens;
    int status;
    std::string line;
  };
  void put(Result result) {
    {
      const std::lock_guard lock(mutex);
      results.push_back(std::move(result));
    }
    wake.notify_one();
  }
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<Result> results;
};

/// Collects an answer and writes it as a line of the output.
class Batch::Reply final : public HttpReply {
public:
  Reply(std::shared_ptr<Inbox> inbox, const Step& step, std::string custom_id)
      : inbox_(std::move(inbox)), index_(step.index), tokens_(step.tokens), custom_id_(std::move(custom_id)) {}
  ~Reply() override {
    if (!done_) send(openai_error({500, "server_error", "the request was not answered"}));
  }
  void send(HttpResponse response) override {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(done_, true)) return;
    }
    std::string body = std::move(response.body);
    // Ours has no line ends; what is no JSON becomes a string.
    if (!response.type.starts_with("application/json") || body.find('\n') != body.npos) body = json_text(body);
    inbox_->put({index_, tokens_, response.status, result_line(custom_id_, response.status, body)});
  }
  void begin(std::string_view type, HttpHeaders headers) override {
    stream_.type = type;
    stream_.headers = std::move(headers);
  }
  void write(std::string text) override {
    const std::lock_guard lock(mutex_);
    stream_.body += text;
  }
  void end() override { send(std::move(stream_)); }
  void on_gone(std::function<void()>) override {}
  /// It will not be answered.
  void release() { done_ = true; }

private:
  std::shared_ptr<Inbox> inbox_;
  std::size_t index_, tokens_;
  std::string custom_id_;
  std::mutex mutex_;
  HttpResponse stream_;
  bool done_ = false;
};

/// What the order is planned from.
struct Batch::Prompts {
  explicit Prompts(const std::string& folder) : tokens(folder) {}
  TokenFile tokens;
  std::vector<std::size_t> indices, answers;  ///< of each list of tokens
};

Batch::Batch(ServedModel& model, Answer answer, const BatchInput& input, BatchJournal& journal, BatchOptions options)
    : model_(model),
      answer_(std::move(answer)),
      input_(input),
      journal_(journal),
      options_(std::move(options)),
      inbox_(std::make_shared<Inbox>()) {
  model_.before_submit = [this](ServeRequest& request, std::size_t choices) { return before_submit(request, choices); };
}

Batch::~Batch() {
  model_.scheduler.stop();  // nobody answers to a model that is gone
  model_.before_submit = nullptr;
}

BatchSummary Batch::run() {
  began_ = Clock::now();
  summary_.before = journal_.size();
  if (options_.by_prefix) {
    plan();
    summary_.plan_seconds = seconds_since(began_);
  } else {
    for (std::size_t i = 0; i < input_.size(); ++i)
      if (!journal_.has(i)) steps_.push_back({i});
  }
  for (const Step& step : steps_) plan_tokens_ += static_cast<double>(step.tokens);
  answer_all();
  reported_ = {};
  report();
  summary_.cancelled = cancelled() && journal_.size() < input_.size();
  if (!summary_.cancelled) journal_.finish();
  return summary_;
}

void Batch::plan() {
  prompts_ = std::make_unique<Prompts>(options_.folder);
  for (std::size_t i = 0; i < input_.size() && !cancelled(); ++i) {
    if (journal_.has(i)) continue;
    Step step{i};
    start(step);
    collect({});
    report();
  }
  const auto lists = prompts_->tokens.lists();
  std::vector<BatchItem> items;
  for (std::size_t i = 0; i < lists.size(); ++i) items.push_back({lists[i], prompts_->answers[i]});
  summary_.plan = plan_batch(items);
  for (BatchPlan::Step& step : summary_.plan.order) {
    const BatchItem& item = items[step.item];
    const std::size_t own = item.prompt.size() - (step.shared.empty() ? 0 : step.shared.back());
    steps_.push_back({prompts_->indices[step.item], own + item.answer, std::move(step.shared)});
  }
  summary_.plan.order.clear();
  prompts_ = nullptr;
}

void Batch::answer_all() {
  for (std::size_t next = 0; (next < steps_.size() || in_flight_ > 0) && !cancelled();) {
    const std::size_t most = model_.scheduler.stats().running + options_.ahead;
    for (; next < steps_.size() && in_flight_ < most && !cancelled(); ++next) start(steps_[next]);
    collect(kWait);
    report();
  }
}

void Batch::start(Step& step) {
  try {
    BatchRequest request = input_.read(step.index);
    step_ = &step;
    reply_ = std::make_shared<Reply>(inbox_, step, std::move(request.custom_id));
    ++in_flight_;
    // The handler is the last one who holds it.
    answer_(request.http, std::shared_ptr<Reply>(reply_));
    step_ = nullptr, reply_ = nullptr;
  } catch (const BatchLineError& e) {
    journal_.add(step.index, 0, error_line(e));
    ++summary_.failed;
  }
}

bool Batch::before_submit(ServeRequest& request, std::size_t choices) {
  if (!step_) return true;
  if (!prompts_) {
    // What a handler makes of a line beside its first request was not planned.
    request.kept = std::exchange(step_->kept, std::nullopt);
    return true;
  }
  const std::size_t room = model_.scheduler.context() - request.prompt.size();
  const std::size_t answer = request.max_tokens > room ? std::min(room, kUsualAnswer) : request.max_tokens;
  if (reply_) {
    prompts_->tokens.add(request.prompt);
    prompts_->indices.push_back(step_->index), prompts_->answers.push_back(choices * answer);
    reply_->release();
    reply_ = nullptr;
    --in_flight_;
  }
  return false;
}

void Batch::collect(std::chrono::milliseconds most) {
  std::vector<Inbox::Result> results;
  {
    std::unique_lock lock(inbox_->mutex);
    const std::size_t enough = std::clamp<std::size_t>(in_flight_ / 2, 1, kTogether);
    inbox_->wake.wait_for(lock, most, [&] { return inbox_->results.size() >= enough; });
    results.swap(inbox_->results);
  }
  if (cancelled()) return;  // answers of a scheduler that stops are none
  for (const Inbox::Result& result : results) {
    --in_flight_;
    tokens_done_ += static_cast<double>(result.tokens);
    ++(result.status == 200 ? summary_.answered : summary_.failed);
    journal_.add(result.index, result.status, result.line);
  }
  journal_.sync();
}

void Batch::report() {
  if (Clock::now() - reported_ < kReport) return;
  reported_ = Clock::now();
  const SchedulerStats stats = model_.scheduler.stats();
  BatchProgress& p = summary_.last;
  p = {.requests = input_.size(),
       .done = journal_.size(),
       .planned = prompts_ ? prompts_->indices.size() : 0,
       .planning = prompts_ != nullptr,
       .seconds = seconds_since(began_),
       .seconds_left = {},
       .read = stats.prompt_tokens,
       .shared = stats.cached_tokens,
       .generated = stats.generated_tokens};
  if (tokens_done_ > 0)
    p.seconds_left = (p.seconds - summary_.plan_seconds) * (plan_tokens_ - tokens_done_) / tokens_done_;
  if (options_.progress) options_.progress(p);
}

}  // namespace snug
