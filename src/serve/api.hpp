#pragma once
/// What requests mean: paths, keys, errors, and the thread on which bodies are read and prompts are made.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "generate/conversation.hpp"
#include "serve/energy.hpp"
#include "serve/http.hpp"
#include "serve/response_store.hpp"
#include "serve/scheduler.hpp"
#include "serve/served_models.hpp"
#include "serve/worker.hpp"

namespace snug {

using Json = nlohmann::ordered_json;

/// A request that cannot be answered; each API gives it its own shape.
class ApiError : public Error {
public:
  ApiError(int http_status, std::string kind, const std::string& message, std::string parameter = {},
           std::string error_code = {})
      : Error(message),
        status(http_status),
        type(std::move(kind)),
        param(std::move(parameter)),
        code(std::move(error_code)) {}
  int status;
  std::string type, param, code;
};

/// A field has a value that cannot be taken.
[[noreturn]] inline void bad_field(const std::string& field, const std::string& message) {
  throw ApiError(400, "invalid_request_error", message, field, "invalid_value");
}

struct ApiOptions {
  std::string model;                        ///< the name that clients see
  std::vector<std::string> keys;            ///< one of which a request must have; none: everybody is served
  SamplerOptions sampler;                   ///< where a request says nothing
  std::string chat_template;                ///< "": the file's own
  Bytes file_bytes = 0;                     ///< of the model's file
  Bytes weight_bytes = 0;                   ///< of all weights when they are in memory
  Bytes least_budget = 0, most_budget = 0;  ///< that make sense for this model, and on this machine
  std::string sessions_folder;              ///< where requests may save sequences; "": nowhere
  std::shared_ptr<ResponseStore> responses = std::make_shared<ResponseStore>();
  std::shared_ptr<EnergyAccount> energy;  ///< null: it is not known what the model takes
  const ServedModels* models = nullptr;   ///< all that are served beside this one; null: none are
  /// Changes the budget. Throws Error when that is less than is needed now.
  std::function<void(Bytes)> resize;
};

/// The model behind the APIs. Thread-safe.
class ServedModel {
public:
  ServedModel(Model& model, const Ledger& ledger, Scheduler& scheduler, ApiOptions options);

  Model& model;
  const Ledger& ledger;
  Scheduler& scheduler;
  const ApiOptions options;
  const std::int64_t created;  ///< seconds since 1970
  /// Sees every request, of so many choices, before it is submitted, and may change it; when it says false, it is not.
  /// Called on the thread that answers; null: nobody looks.
  std::function<bool(ServeRequest& request, std::size_t choices)> before_submit;

  /// Prompt of a chat. Throws ApiError when the template refuses it.
  std::vector<TokenId> chat_prompt(const Json& messages, const Json& tools, std::optional<bool> thinking) const;
  /// Throws ContextExceeded, too, when it can be told without reading all of it.
  std::vector<TokenId> encode(const std::string& text, bool special) const;
  /// Throws ApiError with what is wrong with the grammar.
  std::unique_ptr<Constraint> constraint(const std::string& kind, const std::string& grammar) const;

  /// Does what needs a constraint, on a thread of its own: others' requests are read meanwhile.
  void with_grammars(Worker::Work work) { grammar_worker_.add(std::move(work)); }
  /// Lets go of what waits for that.
  void stop() { grammar_worker_.stop(); }

private:
  /// Megabytes would hold up others for seconds. Throws ContextExceeded when the longest tokens would be too many.
  void check_length(std::size_t bytes) const;

  std::size_t longest_token_ = 1;
  mutable std::once_flag grammars_once_;
  mutable std::unique_ptr<Grammars> grammars_;  ///< made when the first request wants one
  Worker grammar_worker_;
};

/// Answers one kind of request. Throws ApiError.
using ApiHandler = void (*)(ServedModel&, const HttpRequest&, std::shared_ptr<HttpReply>);
struct ApiRoute {
  std::string_view method, path;
  ApiHandler handler;
  HttpResponse (*error)(const ApiError& error);  ///< what is wrong, in the API's own shape
  bool open = false;                             ///< without a key
};

class Api {
public:
  explicit Api(ServedModels& models);
  /// Of one model, whatever name requests give it.
  explicit Api(ServedModel& model);
  ~Api() { stop(); }
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  /// An error without a handler, in the shape of the API that the path belongs to.
  static HttpResponse refusal(int status, const std::string& path, const std::string& why);
  /// The HttpHandler: takes the request to the API's thread.
  void handle(HttpRequest request, std::shared_ptr<HttpReply> reply);
  /// The same on the caller's thread; one at a time.
  void answer(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply);
  /// Lets go of what waits; nothing is answered any more.
  void stop();

private:
  /// `model` is set when it had to be loaded for this.
  struct Call {
    HttpRequest request;
    std::shared_ptr<HttpReply> reply;
    ServedModels::Lease model;
    std::shared_ptr<const std::atomic<bool>> gone{};  ///< whether its client left before its turn came
  };
  void run();
  void add(Call call);
  void answer(const Call& call);
  /// The one that is asked for; null: it is being loaded, and the call comes again then.
  ServedModels::Lease model_for(const Call& call, HttpResponse (*shape)(const ApiError&));

  std::unique_ptr<OneModel> one_;
  ServedModels& models_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Call> queue_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace snug
