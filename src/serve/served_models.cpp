#include "serve/served_models.hpp"

#include <algorithm>

#include "serve/api.hpp"

namespace snug {

namespace {

/// Stops at a field of the outermost object: the rest of what may be megabytes is read later.
struct FieldFinder : nlohmann::json_sax<Json> {
  explicit FieldFinder(std::string_view f) : field(f) {}
  std::string_view field;
  std::string found;
  bool awaited = false;
  int depth = 0;

  bool other() {
    awaited = false;
    return true;
  }
  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& value) override {
    if (awaited) found = value;
    return !awaited;
  }
  bool key(string_t& value) override {
    awaited = depth == 1 && value == field;
    return true;
  }
  bool start_object(std::size_t) override {
    ++depth;
    return other();
  }
  bool end_object() override {
    --depth;
    return true;
  }
  bool start_array(std::size_t) override { return start_object(0); }
  bool end_array() override { return end_object(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }
};

}  // namespace

std::string text_in(const std::string& body, std::string_view field) {
  FieldFinder finder(field);
  Json::sax_parse(body, &finder);
  return finder.found;
}

const std::vector<std::string>& OneModel::keys() const {
  return model_.options.keys;
}

const std::string& OneModel::usual() const {
  return model_.options.model;
}

std::vector<ModelState> OneModel::states() const {
  return models_with(model_);
}

SchedulerStats OneModel::stats() const {
  return model_.scheduler.stats();
}

void OneModel::stop() {
  model_.stop();
}

std::vector<ModelState> models_with(const ServedModel& m) {
  if (m.options.models) return m.options.models->states();
  ModelState state;
  state.name = m.options.model;
  state.architecture = m.model.config().architecture;
  state.size_label = m.model.file().get_string("general.size_label").value_or("");
  state.state = "hot";
  state.context = m.scheduler.context();
  state.file_bytes = m.options.file_bytes;
  state.weights_all = m.options.weight_bytes;
  state.created = m.created;
  const LedgerReport report = m.ledger.report();
  state.weights = report.by_tag[static_cast<std::size_t>(Tag::weights)];
  state.kv = report.by_tag[static_cast<std::size_t>(Tag::kv)];
  return {state};
}

SchedulerStats stats_with(const ServedModel& model) {
  return model.options.models ? model.options.models->stats() : model.scheduler.stats();
}

void add_stats(SchedulerStats& to, const SchedulerStats& more) {
  to.waiting += more.waiting, to.running += more.running, to.prefixes += more.prefixes;
  to.finished += more.finished, to.failed += more.failed, to.preempted += more.preempted;
  to.prompt_tokens += more.prompt_tokens, to.cached_tokens += more.cached_tokens;
  to.generated_tokens += more.generated_tokens;
  to.swap_used += more.swap_used, to.swap_written += more.swap_written, to.swap_read += more.swap_read;
  to.busy_seconds += more.busy_seconds;
  to.requests.insert(to.requests.end(), more.requests.begin(), more.requests.end());
  to.events.insert(to.events.end(), more.events.begin(), more.events.end());
  std::stable_sort(to.events.begin(), to.events.end(), [](const auto& a, const auto& b) { return a.when > b.when; });
  KvUse& use = to.kv.use;
  use.raw += more.kv.use.raw, use.coded += more.kv.use.coded, use.cold += more.kv.use.cold;
  use.chains += more.kv.use.chains, use.disk += more.kv.use.disk;
  to.kv.running += more.kv.running, to.kv.kept += more.kv.kept;
  to.kv.tree.insert(to.kv.tree.end(), more.kv.tree.begin(), more.kv.tree.end());
}

}  // namespace snug
