// serve: models behind HTTP, for the clients of OpenAI's, Anthropic's and Ollama's APIs, and a page.

#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/error.hpp"
#include "cli/budget_keeper.hpp"
#include "cli/commands.hpp"
#include "cli/config_file.hpp"
#include "cli/control.hpp"
#include "cli/engine.hpp"
#include "cli/model_store.hpp"
#include "cli/redis_options.hpp"
#include "serve/api.hpp"
#include "serve/front.hpp"
#include "serve/http_server.hpp"
#include "serve/model_house.hpp"

namespace snug {

namespace {

struct Options {
  EngineOptions engine;
  std::vector<std::string> more;  ///< models
  std::size_t most_loaded = 0;
  std::string host = "127.0.0.1", name;
  std::uint16_t port = 8080;
  std::size_t drain_seconds = 30;
  bool no_pressure = false, log_json = false;
  std::string swap = "4GiB", evict = "least-cost";
  bool swap_pages = false;
  KvSwapOptions swap_options;
  RedisOptions redis;
  FrontOptions front;
  SchedulerOptions scheduler;
  HttpLimits limits;
  ApiOptions api;
};

/// As many connections as the system allows this process.
void allow_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/// Large bodies go back to the system when they are done, whatever lies behind them in the heap.
void return_large_blocks() {
#ifdef M_MMAP_THRESHOLD
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

/// What clients see of a path or a name.
std::string name_of(const std::string& model) {
  const std::filesystem::path file = std::filesystem::path(model).filename();
  return file.extension() == ".gguf" ? file.stem().string() : file.string();
}

/// Where the models are put once they are there.
struct Door {
  sigset_t ends;
  Front& front;
  std::unique_ptr<HttpServer> server;
};

/// Answers until it is told to end, and then what is under way.
void answer_until_told(Door& door, const Options& o, Api& api, BudgetKeeper& budget, const std::string& names) {
  door.front.open([&api](HttpRequest request, std::shared_ptr<HttpReply> reply) {
    api.handle(std::move(request), std::move(reply));
  });
  fmt::print("serving {0} at http://{1}:{2}/v1 (page: http://{1}:{2}/)\n", names, o.host, door.server->port());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&door.ends, &signal);
  fmt::print(stderr, "finishing what is under way, at most {} s (Ctrl-C: at once)\n", o.drain_seconds);
  // SIGTERM changes nothing any more: it comes twice when it is sent to a process and to its group, as by timeout(1).
  sigset_t again;
  sigemptyset(&again);
  sigaddset(&again, SIGINT);
  pthread_sigmask(SIG_UNBLOCK, &again, nullptr);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(o.drain_seconds);
  door.front.drain(std::chrono::seconds(o.drain_seconds));
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  door.server->drain(std::max(left, std::chrono::milliseconds(100)));
  // Nothing may answer to a server that is gone.
  api.stop();
  budget.on_change({});
}

std::string budget_note(Bytes from, Bytes to, bool pressure) {
  return fmt::format("{} from now on: {}", format_bytes(to),
                     !pressure   ? "as it was asked to"
                     : to < from ? "the system is short of memory"
                                 : "the system has memory again");
}

void serve_one(Options& o, const CLI::App& command, Door& door) {
  const MemoryInfo before = memory_info();
  const Engine engine = load_engine(o.engine, {.context = o.scheduler.context, .kv_swap = o.swap_options});
  const auto budget = keep_budget(engine, o.engine, o.scheduler.context, !o.no_pressure, before);
  const ControlServer control(*budget, *engine.ledger);
  recommended_sampling(engine.model->file(), command, o.api.sampler);
  o.api.model = o.name.empty() ? name_of(o.engine.model) : o.name;
  o.api.most_budget = std::min(before.limit, before.physical);
  std::error_code unknown;
  o.api.file_bytes = std::filesystem::file_size(engine.model->file().path(), unknown);
  Scheduler scheduler(*engine.model, *engine.ledger, o.scheduler);
  const MemoryPlan plan = engine.model->plan(engine.ledger->report().limit, kUsualContext);
  ApiOptions api_options = o.api;
  api_options.least_budget = plan.smallest;
  api_options.weight_bytes = plan.weights.total;
  api_options.resize = [&](Bytes bytes) { scheduler.change_budget(bytes, [&](Bytes b) { budget->set(b); }); };
  budget->on_change(
      [&scheduler](Bytes from, Bytes to, bool pressure) { scheduler.note("budget", budget_note(from, to, pressure)); });
  if (EnergyMeter meter; meter.known())
    api_options.energy = std::make_shared<EnergyAccount>(std::move(meter), [&scheduler] {
      const SchedulerStats stats = scheduler.stats();
      return EnergyLoad{stats.busy_seconds, stats.generated_tokens};
    });
  ServedModel model(*engine.model, *engine.ledger, scheduler, std::move(api_options));
  Api api(model);
  answer_until_told(door, o, api, *budget, o.api.model);
  scheduler.stop();
  // Nor may it call those that are.
  door.server = nullptr;
}

void serve_several(Options& o, const CLI::App& command, Door& door) {
  if (!o.name.empty()) fail<UsageError>("--name is for one model: several are called as they are given");
  if (!o.redis.address.empty()) fail<UsageError>("--redis is for one model so far");
  const MemoryInfo before = memory_info();
  std::vector<HousePlace> places{{name_of(o.engine.model), find_or_fetch_model(o.engine.model)}};
  for (const std::string& model : o.more) places.push_back({name_of(model), find_or_fetch_model(model)});
  std::string names;
  for (const HousePlace& place : places) names += (names.empty() ? "" : ", ") + place.name;
  Ledger ledger(budget_of(o.engine));
  ThreadPool pool(o.engine.threads);
  o.swap_options.space /= places.size();
  HouseOptions options;
  options.model =
      with_engine_options({.context = o.scheduler.context, .kv_swap = o.swap_options}, o.engine, ledger.report().limit);
  options.scheduler = o.scheduler;
  options.most_loaded = o.most_loaded;
  options.api = o.api;
  options.api.most_budget = std::min(before.limit, before.physical);
  options.describe = [&command, &ledger](const Model& model, ApiOptions& api) {
    recommended_sampling(model.file(), command, api.sampler);
    api.least_budget = model.plan(ledger.report().limit, kUsualContext).smallest;
  };
  BudgetKeeper* keeper = nullptr;  // there is one before anybody asks
  options.api.resize = [&keeper](Bytes bytes) { keeper->set(bytes); };
  ModelHouse house(std::move(places), ledger, pool, std::move(options));
  EnergyMeter meter;
  house.open(!meter.known() ? nullptr
                            : std::make_shared<EnergyAccount>(std::move(meter), [&] { return house.energy_load(); }));
  BudgetKeeper::Options keeping;
  keeping.follow_pressure = !o.no_pressure;
  keeping.smallest = house.find("")->options.least_budget;
  keeping.ceiling_for = [engine_options = o.engine, info = before](Bytes limit) mutable {
    info.limit = limit;
    return budget_of(engine_options, info);
  };
  BudgetKeeper budget([&house](Bytes bytes) { house.resize(bytes); }, ledger, std::move(keeping));
  keeper = &budget;
  const ControlServer control(budget, ledger);
  budget.on_change(
      [&house](Bytes from, Bytes to, bool pressure) { house.note("budget", budget_note(from, to, pressure)); });
  Api api(house);
  answer_until_told(door, o, api, budget, names);
  door.server = nullptr;
}

void serve(Options& o, const CLI::App& command) {
  if (o.engine.model.empty()) fail<UsageError>("MODEL is required (see snug serve --help)");
  o.scheduler.shared = shared_prefixes(o.redis);
  o.api.responses->share(shared_responses(o.redis));
  // Before any thread starts, so that only sigwait() sees them.
  sigset_t ends;
  sigemptyset(&ends);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&ends, signal);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  allow_descriptors();
  return_large_blocks();

  o.front.refusal = Api::refusal;
  if (o.log_json) o.front.log = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  Front front(o.front);
  // Before the model is loaded: who asks then learns that it is.
  auto server = std::make_unique<HttpServer>(
      o.host, o.port,
      [&front](HttpRequest request, std::shared_ptr<HttpReply> reply) {
        front.handle(std::move(request), std::move(reply));
      },
      o.limits, Api::refusal);
  o.swap_options.space = parse_size(o.swap, 0);
  if (o.swap_pages) o.swap_options.group = 0, o.swap_options.background = o.swap_options.keep_copies = false;
  o.scheduler.eviction = o.evict == "least-recent" ? Eviction::least_recent : Eviction::least_cost;
  Door door{ends, front, std::move(server)};
  o.more.empty() ? serve_one(o, command, door) : serve_several(o, command, door);
}

}  // namespace

void add_serve(CLI::App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* command =
      app.add_subcommand("serve", "answer requests over HTTP: OpenAI's, Anthropic's and Ollama's APIs, and a page");
  add_engine_options(*command, o.engine);
  command->add_option("MORE", o.more,
                      "further models, in the same memory: loaded when a request names them, whose weights go and come "
                      "as they are used");
  add_option(*command, "--models-loaded", o.most_loaded,
             "most of several models that are loaded; one that is not used leaves for another (0: as memory allows)")
      ->capture_default_str();
  add_kv_option(*command, o.engine);
  add_option(*command, "--host", o.host, "address to listen on; 0.0.0.0 lets other machines in")->capture_default_str();
  add_option(*command, "--port", o.port, "port to listen on; 0: any free one")->capture_default_str();
  add_option(*command, "--name", o.name, "name of the model in the API (default: as given)");
  add_option(*command, "--api-key", o.api.keys, "key that requests must have (may be given several times)");
  add_option(*command, "-c,--ctx-size", o.scheduler.context, "context of each request in tokens (default: as trained)");
  add_option(*command, "--max-batch", o.scheduler.max_batch, "requests at work at a time; others wait")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_option(*command, "--max-prefixes", o.scheduler.max_prefixes, "beginnings that are kept for later requests")
      ->capture_default_str();
  add_option(*command, "--evict", o.evict, "which of them leave memory first")
      ->check(CLI::IsMember({"least-cost", "least-recent"}))
      ->capture_default_str();
  add_option(*command, "--swap", o.swap,
             "most bytes on the disk (in TMPDIR or /var/tmp) for requests that give way and for beginnings that memory "
             "has no room for; 0: they are read again")
      ->capture_default_str();
  add_flag(*command, "--swap-pages", o.swap_pages,
           "move them page by page while all wait, and write all of them each time (to compare with)");
  add_option(*command, "--turn", o.scheduler.turn,
             "tokens that a request may write while others wait; 0: until it is done")
      ->capture_default_str();
  add_flag(*command, "--reserve-longest", o.scheduler.reserve_longest,
           "keep room for the longest answer that each request allows (default: for a usual one)");
  add_option(*command, "--max-waiting", o.scheduler.max_waiting, "requests that may wait; further ones get a 429")
      ->capture_default_str();
  add_option(*command, "--max-per-key", o.scheduler.max_of_owner, "requests of a key under way; 0: any number")
      ->capture_default_str();
  add_option(*command, "--kv-dir", o.scheduler.kv_folder, "folder where they are kept from one run to the next");
  add_redis_options(*command, o.redis);
  add_option(*command, "--sessions", o.api.sessions_folder, "folder where requests may save sessions");
  add_option(*command, "--cors", o.front.origins,
             "origin whose web pages may ask, as https://example.org, or * (may be given several times)");
  add_flag(*command, "--log-json", o.log_json, "a line of JSON on stderr for each request: times and tokens, no text");
  add_option(*command, "--max-body", o.limits.body, "most bytes of a request")->transform(CLI::AsSizeValue(false));
  add_option(*command, "--drain", o.drain_seconds, "seconds to finish requests when it is told to end")
      ->capture_default_str();
  add_option(*command, "--template", o.api.chat_template, "chat template: a file or a built-in name");
  add_option(*command, "--temp", o.api.sampler.temperature, "where requests say nothing")->capture_default_str();
  add_option(*command, "--top-k", o.api.sampler.top_k, "the same")->capture_default_str();
  add_option(*command, "--top-p", o.api.sampler.top_p, "the same")->capture_default_str();
  add_option(*command, "--min-p", o.api.sampler.min_p, "the same")->capture_default_str();
  add_flag(*command, "--no-pressure", o.no_pressure, "keep the budget when the system is short of memory");
  command->footer(
      "Examples:\n  snug serve qwen2.5-coder-0.5b --memory 2GiB\n"
      "  snug serve qwen2.5-coder-0.5b smollm2-135m gemma3-270m --memory 600MiB\n"
      "  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": "
      "\"Hello\"}]}'\n"
      "  SNUG_API_KEY=secret snug serve smollm2-135m --host 0.0.0.0\n"
      "  SNUG_REDIS_PASSWORD=secret snug serve qwen2.5-coder-0.5b --redis 10.0.0.5:6379   (each replica; "
      "docs/scale-out.md)");
  command->get_option("MODEL")->required(false);
  add_config_option(*command);
  command->callback([options, command] { serve(*options, *command); });
}

}  // namespace snug
