#include "serve/model_house.hpp"

#include <algorithm>
#include <filesystem>

#include "base/log.hpp"
#include "model/config.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

/// Uses count less by this with every turn: neither only the last one counts nor what was long ago.
constexpr double kFading = 0.7;
/// A turn lasts so many times as long as the last change to another model took, at most.
constexpr int kWorthIt = 4;
/// And not less than that where others had to make room: requests that left memory for it have to come back.
constexpr std::chrono::milliseconds kLeastTurn{300};
constexpr std::chrono::seconds kLongestTurn{20};
/// Address space for memory that is handed over.
constexpr Bytes kMostStock = Bytes{64} << 30;

/// Between two steps.
struct Visit {
  Visit(Turns& all, std::size_t who) : turns(all) { turns.begin(who, false); }
  ~Visit() { turns.end(false); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  Turns& turns;
};

}  // namespace

/// Of one scheduler.
class ModelHouse::Turn final : public ComputeTurn {
public:
  Turn(ModelHouse& house, std::size_t index) : house_(house), index_(index) {}
  std::string begin(bool computes) override {
    house_.turns_.begin(index_, computes);
    house_.but_ = kNobody;
    return computes ? house_.take_over(index_) : std::string();
  }
  void end(bool more) override {
    house_.update_facts();
    house_.turns_.end(more);
  }
  Bytes others_bytes() const override { return house_.others_bytes(index_); }

private:
  ModelHouse& house_;
  std::size_t index_;
};

ModelHouse::ModelHouse(std::vector<HousePlace> places, Ledger& ledger, ThreadPool& pool, HouseOptions options)
    : ledger_(ledger), pool_(pool), options_(std::move(options)), stock_(kMostStock) {
  options_.model.shares_memory = true;
  options_.model.stock = &stock_;
  options_.api.models = this;
  if (places.empty()) fail("there are no models");
  for (HousePlace& place : places) {
    if (has(place.name)) fail("two models are called {}: rename a file", place.name);
    Entry& entry = entries_.emplace_back();
    const GgufFile file = GgufFile::open(place.path);
    const ModelConfig config = read_config(file);
    entry.facts.name = place.name;
    entry.facts.architecture = config.architecture;
    entry.facts.size_label = file.get_string("general.size_label").value_or("");
    entry.facts.state = "cold";
    entry.facts.context = options_.scheduler.context ? options_.scheduler.context : config.trained_context;
    entry.facts.file_bytes = file.total_bytes();
    entry.facts.created = seconds_now();
    entry.place = std::move(place);
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) entries_[i].turn = std::make_unique<Turn>(*this, i);
  holder_ = ledger_.add_holder({[] { return 0.5; }, [this](Bytes wanted) { return take_from_others(wanted, but_); }});
}

ModelHouse::~ModelHouse() {
  stop();
  holder_.reset();
  // In nobody's turn: no scheduler is left. The account of energy may still ask.
  options_.api.energy = nullptr;
  for (Entry& entry : entries_) {
    std::shared_ptr<HousedModel> last;
    const std::lock_guard lock(mutex_);
    last.swap(entry.housed);
  }
}

void ModelHouse::open(std::shared_ptr<EnergyAccount> energy) {
  options_.api.energy = std::move(energy);
  load_now(0);
}

const std::string& ModelHouse::usual() const {
  return entries_.front().place.name;
}

std::size_t ModelHouse::index_of(const std::string& name) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.place.name == name; });
  return found == entries_.end() ? kNobody : static_cast<std::size_t>(found - entries_.begin());
}

bool ModelHouse::has(const std::string& name) const {
  return index_of(name) != kNobody;
}

ModelHouse::Lease ModelHouse::lease(std::size_t index) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[index];
  if (!entry.housed) return nullptr;
  ++entry.users;
  return {&entry.housed->served, [this, &entry](ServedModel*) {
            const std::lock_guard back(mutex_);
            --entry.users;
          }};
}

ModelHouse::Lease ModelHouse::find(const std::string& name) {
  if (!name.empty()) return lease(index_of(name));
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (Lease found = lease(i)) return found;
  return nullptr;
}

void ModelHouse::load(const std::string& name, std::function<void(Lease, const std::string&)> done) {
  loader_.add([this, index = index_of(name), done = std::move(done)] {
    Lease loaded;
    std::string error;
    try {
      loaded = load_now(index);
    } catch (const std::exception& e) {
      error = e.what();
    }
    done(std::move(loaded), error);
  });
}

ModelHouse::Lease ModelHouse::load_now(std::size_t index) {
  if (Lease there = lease(index)) return there;
  Entry& entry = entries_[index];
  const auto loaded = [this] {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::count_if(entries_.begin(), entries_.end(), [](const Entry& e) { return e.housed != nullptr; }));
  };
  while (options_.most_loaded > 0 && loaded() >= options_.most_loaded)
    if (!unload_one(index)) break;  // all are at work: then it is one more
  std::unique_ptr<Model> model;
  std::string error;
  while (true) {
    {
      const Visit visit(turns_, index);
      model = try_to_load(entry, error);
    }
    if (model) break;
    if (!unload_one(index)) fail("{} cannot be loaded: {}", entry.place.name, error);
  }
  ApiOptions api = options_.api;
  api.model = entry.place.name;
  api.file_bytes = entry.facts.file_bytes;
  api.weight_bytes = model->weight_use().all;
  if (options_.describe) options_.describe(*model, api);
  SchedulerOptions scheduler = options_.scheduler;
  scheduler.compute_turn = entry.turn.get();
  auto housed = std::make_shared<HousedModel>(std::move(model), ledger_, scheduler, std::move(api));
  {
    const Visit visit(turns_, index);
    {
      const std::lock_guard lock(mutex_);
      entry.housed = std::move(housed);
    }
    update_facts();
  }
  log(LogLevel::info, "{} is loaded", entry.place.name);
  return lease(index);
}

/// Null: there is no room for what a model needs at least.
std::unique_ptr<Model> ModelHouse::try_to_load(const Entry& entry, std::string& error) {
  but_ = kNobody;
  std::unique_ptr<Model> model;
  try {
    model = Model::load(entry.place.path, ledger_, pool_, options_.model);
  } catch (const OutOfBudget& e) {
    error = e.what();
    return nullptr;
  }
  const std::size_t context = options_.scheduler.context ? options_.scheduler.context : kUsualContext;
  const Bytes least = model->least_to_wake(std::min(context, kUsualContext));
  const LedgerReport report = ledger_.report();
  Bytes stays = report.used;  // when all others rest and have no weights
  for (const Entry& e : entries_)
    if (e.housed)
      stays -= std::min(stays, e.housed->model->weight_use().in_memory + e.housed->model->kv_use().in_memory());
  if (report.limit == Ledger::kUnlimited || stays + least <= report.limit) return model;
  error = fmt::format("it needs {} at least, beside {} that are used: raise --memory", format_bytes(least),
                      format_bytes(stays));
  return nullptr;
}

bool ModelHouse::unload_one(std::size_t but) {
  std::size_t least = kNobody;
  std::shared_ptr<HousedModel> housed;
  {
    const Visit visit(turns_, but);
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < entries_.size(); ++i)
      if (i != but && entries_[i].housed && entries_[i].users == 0 &&
          (least == kNobody || entries_[i].use < entries_[least].use))
        least = i;
    if (least == kNobody) return false;
    housed = std::move(entries_[least].housed);
    if (active_ == least) active_ = kNobody;
  }
  housed->stop();
  SchedulerStats last = housed->scheduler.stats();
  last.waiting = last.running = last.prefixes = 0, last.swap_used = 0, last.requests.clear(), last.kv = {};
  {
    const Visit visit(turns_, but);
    housed = nullptr;
    {
      const std::lock_guard lock(mutex_);
      add_stats(unloaded_, last);
    }
    update_facts();
  }
  log(LogLevel::info, "{} has left memory", entries_[least].place.name);
  return true;
}

std::string ModelHouse::take_over(std::size_t index) {
  Entry& entry = entries_[index];
  but_ = index;
  // Its scheduler works before it is known here.
  if (!entry.housed) return "the model is being loaded";
  if (active_ == index && entry.housed->awake) return {};
  const auto start = std::chrono::steady_clock::now();
  for (Entry& e : entries_) e.use *= kFading;
  entry.use += 1;
  Model& model = *entry.housed->model;
  const Bytes before = model.weight_use().read;
  active_ = index;
  std::string error;
  const bool rested = !entry.housed->awake;
  if (rested) {
    // Whether it need not be tried again.
    const auto wake = [&] {
      try {
        model.wake(others_bytes(index), [&](Bytes missing) { take_from_others(missing, index); });
        return true;
      } catch (const OutOfBudget&) {  // others have no more, but its own requests may
        if (!entry.housed->scheduler.give_up_memory()) throw;
        return false;
      }
    };
    try {
      while (!entry.housed->awake) entry.housed->awake = wake();
    } catch (const std::exception& e) {
      error = fmt::format("{} cannot have its turn: {}", entry.place.name, e.what());
      log(LogLevel::error, "{}", error);
    }
  }
  const std::chrono::steady_clock::duration took = std::chrono::steady_clock::now() - start;
  std::chrono::steady_clock::duration length = took * kWorthIt;
  if (rested) length = std::max<std::chrono::steady_clock::duration>(length, kLeastTurn);
  turns_.set_length(took + std::min<std::chrono::steady_clock::duration>(length, kLongestTurn));
  const std::lock_guard lock(mutex_);
  ++entry.facts.switches;
  entry.facts.switch_bytes = model.weight_use().read - before;
  entry.facts.switch_seconds = std::chrono::duration<double>(took).count();
  return error;
}

Bytes ModelHouse::take_from_others(Bytes wanted, std::size_t but) {
  const Bytes before = ledger_.report().used;
  const auto taken = [&] {
    const Bytes now = ledger_.report().used;
    return before > now ? before - now : 0;
  };
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (i != but && entries_[i].housed) order.push_back(i);
  std::sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
    return std::pair(turns_.wants(a), entries_[a].use) < std::pair(turns_.wants(b), entries_[b].use);
  });
  for (const std::size_t i : order)
    if (taken() < wanted) rest(*entries_[i].housed);
  for (const std::size_t i : order)
    if (const Bytes there = taken(); there < wanted) entries_[i].housed->model->give_weights(wanted - there);
  for (const std::size_t i : order)
    while (taken() < wanted && entries_[i].housed->scheduler.give_up_memory()) {
    }
  return taken();
}

Bytes ModelHouse::others_bytes(std::size_t but) const {
  Bytes all = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (i != but && entries_[i].housed) all += entries_[i].housed->model->weight_use().in_memory;
  return all;
}

void ModelHouse::resize(Bytes budget) {
  const Visit visit(turns_, kNobody);
  but_ = active_;
  HousedModel* const at_work = active_ == kNobody ? nullptr : entries_[active_].housed.get();
  if (const Bytes used = ledger_.report().used; used > budget) take_from_others(used - budget, active_);
  while (true) {
    try {
      if (at_work && at_work->awake) {
        at_work->model->resize(budget);
        break;
      }
      if (at_work && ledger_.report().used > budget) at_work->model->give_weights(ledger_.report().used - budget);
      if (const Bytes used = ledger_.report().used; used > budget)
        fail("a budget of {} is too small: {} are needed now", format_bytes(budget), format_bytes(used));
      ledger_.set_limit(budget);
      break;
    } catch (const IoError&) {
      throw;
    } catch (const Error&) {
      if (!at_work || !at_work->scheduler.give_up_kept("the budget became smaller")) throw;
    }
  }
  // When their turn comes they see what they can have now.
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (i != active_ && entries_[i].housed) rest(*entries_[i].housed);
  update_facts();
}

void ModelHouse::rest(HousedModel& housed) {
  if (housed.awake) housed.model->rest();
  housed.awake = false;
}

void ModelHouse::note(std::string_view kind, const std::string& what) {
  // Of whichever is there: events of all are shown together.
  const Lease some = find("");
  if (some) some->scheduler.note(kind, what);
}

void ModelHouse::update_facts() {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    ModelState& facts = entry.facts;
    facts.state = !entry.housed ? "cold" : i == active_ && entry.housed->awake ? "hot" : "warm";
    const WeightUse use = entry.housed ? entry.housed->model->weight_use() : WeightUse{0, facts.weights_all, 0};
    facts.weights = use.in_memory;
    facts.weights_all = use.all;
    facts.kv = entry.housed ? entry.housed->model->kv_use().in_memory() : 0;
  }
}

std::vector<ModelState> ModelHouse::states() const {
  const std::lock_guard lock(mutex_);
  std::vector<ModelState> states;
  for (const Entry& entry : entries_) states.push_back(entry.facts);
  return states;
}

SchedulerStats ModelHouse::stats() const {
  const std::lock_guard lock(mutex_);
  SchedulerStats all = unloaded_;
  for (const Entry& entry : entries_)
    if (entry.housed) add_stats(all, entry.housed->scheduler.stats());
  return all;
}

EnergyLoad ModelHouse::energy_load() const {
  const SchedulerStats all = stats();
  return {all.busy_seconds, all.generated_tokens};
}

void ModelHouse::stop() {
  loader_.stop();
  for (Entry& entry : entries_)
    if (entry.housed) entry.housed->stop();
}

}  // namespace snug
