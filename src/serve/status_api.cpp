#include "serve/status_api.hpp"

#include <string>
#include <utility>

#include "serve/request_fields.hpp"
#include "serve/web_files.hpp"

namespace snug {

namespace {

/// Names of the codec of pages, and of that of cold ones ("": there are none), in what --kv says.
std::pair<std::string, std::string> codecs_of(const std::string& kv) {
  const std::size_t comma = kv.rfind(','), at = kv.rfind('@');
  if (comma == kv.npos || at == kv.npos || at < comma) return {kv, ""};
  return {kv.substr(0, comma), kv.substr(comma + 1, at - comma - 1)};
}

/// Pages by where they are and what they are kept in.
Json kv_forms(const KvUse& use, const std::string& kv) {
  const auto [coded, cold] = codecs_of(kv);
  Json forms = Json::array();
  const auto add = [&forms](const char* tier, const std::string& form, Bytes bytes) {
    if (bytes > 0) forms.push_back({{"tier", tier}, {"form", form}, {"bytes", bytes}});
  };
  add("memory", "bf16", use.raw);
  add("memory", coded, use.coded);
  add("memory", cold, use.cold);
  add("memory", "decoded", use.chains);
  add("disk", !cold.empty() ? cold : coded, use.disk);
  return forms;
}

/// Null: nothing is shared.
Json shared_status(const SharedPrefixes* shared) {
  if (!shared) return nullptr;
  const SharedStats s = shared->stats();
  return {{"hits", s.hits},           {"misses", s.misses},    {"late", s.late},         {"refused", s.refused},
          {"published", s.published}, {"dropped", s.dropped},  {"received", s.received}, {"sent", s.sent},
          {"errors", s.errors},       {"circuit_open", s.open}};
}

}  // namespace

void page_status(ServedModel& m, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  const SchedulerStats s = stats_with(m);
  const LedgerReport l = m.ledger.report();
  const auto now = std::chrono::steady_clock::now();
  Json memory = Json::object(), requests = Json::array(), events = Json::array(), kept = Json::array(),
       models = Json::array();
  for (std::size_t tag = 0; tag < kTagCount; ++tag)
    memory[std::string(tag_name(static_cast<Tag>(tag)))] = l.by_tag[tag];
  for (const RequestStatus& r : s.requests) {
    requests.push_back({{"id", r.id},
                        {"state", r.swapped           ? "on disk"
                                  : r.waits           ? "waits"
                                  : r.read < r.prompt ? "reads"
                                                      : "writes"},
                        {"prompt", r.prompt},
                        {"read", r.read},
                        {"written", r.written},
                        {"bytes", r.bytes}});
  }
  const auto ago = [now](auto when) { return std::chrono::duration<double>(now - when).count(); };
  for (const SchedulerEvent& e : s.events)
    events.push_back(
        {{"seconds_ago", ago(e.when)}, {"kind", e.kind}, {"what", e.what}, {"times", e.times}, {"tokens", e.tokens}});
  for (const KeptStatus& k : s.kv.tree)
    kept.push_back(
        {{"tokens", k.tokens}, {"shared", k.shared}, {"bytes", k.bytes}, {"own", k.own}, {"seconds_ago", ago(k.used)}});
  Json energy;
  if (m.options.energy)
    if (const EnergyReport e = m.options.energy->report(); e.tokens > 0) energy = e.joules_per_token();
  for (const ModelState& model : models_with(m))
    models.push_back({{"name", model.name},
                      {"state", model.state},
                      {"weights", model.weights},
                      {"weights_total", model.weights_all},
                      {"kv", model.kv},
                      {"switches", model.switches},
                      {"switch_bytes", model.switch_bytes},
                      {"switch_seconds", model.switch_seconds}});
  const bool limited = l.limit != Ledger::kUnlimited;
  reply->send({.body = dump({{"model", m.options.model},
                             {"models", std::move(models)},
                             {"kv", m.model.kv_name()},
                             {"context", m.scheduler.context()},
                             {"budget", limited ? Json(l.limit) : Json()},
                             {"used", l.used},
                             {"peak", l.peak},
                             {"least", m.options.least_budget},
                             {"most", std::max(m.options.most_budget, l.used)},
                             {"memory", std::move(memory)},
                             {"swap", {{"used", s.swap_used}, {"written", s.swap_written}, {"read", s.swap_read}}},
                             {"redis", shared_status(m.scheduler.shared())},
                             {"weights_total", m.options.weight_bytes},
                             {"kv_forms", kv_forms(s.kv.use, m.model.kv_name())},
                             {"kv_running", s.kv.running},
                             {"kv_kept", s.kv.kept},
                             {"waiting", s.waiting},
                             {"running", s.running},
                             {"prefixes", s.prefixes},
                             {"generated_tokens", s.generated_tokens},
                             {"prompt_tokens", s.prompt_tokens},
                             {"cached_tokens", s.cached_tokens},
                             {"joules_per_token", std::move(energy)},
                             {"requests", std::move(requests)},
                             {"kept", std::move(kept)},
                             {"events", std::move(events)}})});
}

void page_memory(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const auto bytes = count_field(parse_body(request), "bytes", 1, std::size_t{1} << 50);
  if (!bytes) bad_field("bytes", "'bytes' is missing");
  if (!m.options.resize) bad_field("bytes", "this server's budget cannot be changed");
  try {
    m.options.resize(*bytes);
  } catch (const Error& e) {
    bad_field("bytes", e.what());
  }
  reply->send({.body = dump({{"bytes", *bytes}})});
}

void page_file(ServedModel&, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  for (const WebFile& file : web_files())
    if (request.path == file.path) {
      HttpResponse response{.type = std::string(file.type),
                            .body = {},
                            .headers = {{"Content-Security-Policy",
                                         "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                                         "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                                        {"X-Content-Type-Options", "nosniff"},
                                        {"Referrer-Policy", "no-referrer"},
                                        {"Cache-Control", "no-cache"},
                                        {"Vary", "Accept-Encoding"}}};
      const bool small = request.header("accept-encoding").find("gzip") != std::string_view::npos;
      response.body = small ? file.gzip : file.content;
      if (small) response.headers.emplace_back("Content-Encoding", "gzip");
      return reply->send(std::move(response));
    }
  throw ApiError(404, "invalid_request_error", "the page is not part of this build (make web)");
}

}  // namespace snug
