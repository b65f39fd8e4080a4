#include "serve/status_api.hpp"

#include "serve/request_fields.hpp"
#include "serve/web_files.hpp"

namespace snug {

void page_status(ServedModel& m, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  const SchedulerStats s = m.scheduler.stats();
  const LedgerReport l = m.ledger.report();
  const auto now = std::chrono::steady_clock::now();
  Json memory = Json::object(), requests = Json::array(), events = Json::array();
  for (std::size_t tag = 0; tag < kTagCount; ++tag)
    memory[std::string(tag_name(static_cast<Tag>(tag)))] = l.by_tag[tag];
  Bytes running = 0;
  for (const RequestStatus& r : s.requests) {
    running += r.bytes;
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
  for (const SchedulerEvent& e : s.events)
    events.push_back({{"seconds_ago", std::chrono::duration<double>(now - e.when).count()}, {"what", e.what}});
  Json energy;
  if (m.options.energy)
    if (const EnergyReport e = m.options.energy->report(); e.tokens > 0) energy = e.joules_per_token();
  const bool limited = l.limit != Ledger::kUnlimited;
  reply->send({.body = dump({{"model", m.options.model},
                             {"kv", m.model.kv_name()},
                             {"context", m.scheduler.context()},
                             {"budget", limited ? Json(l.limit) : Json()},
                             {"used", l.used},
                             {"peak", l.peak},
                             {"most", std::max(m.options.most_budget, l.used)},
                             {"memory", std::move(memory)},
                             {"kv_running", running},
                             {"swap", {{"used", s.swap_used}, {"written", s.swap_written}, {"read", s.swap_read}}},
                             {"waiting", s.waiting},
                             {"running", s.running},
                             {"prefixes", s.prefixes},
                             {"generated_tokens", s.generated_tokens},
                             {"prompt_tokens", s.prompt_tokens},
                             {"cached_tokens", s.cached_tokens},
                             {"joules_per_token", std::move(energy)},
                             {"requests", std::move(requests)},
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
    if (request.path == file.path)
      return reply->send({.type = std::string(file.type),
                          .body = std::string(file.content),
                          .headers = {{"Content-Security-Policy",
                                       "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
                                       "frame-ancestors 'none'"},
                                      {"X-Content-Type-Options", "nosniff"}}});
  throw ApiError(404, "invalid_request_error", "the page is not part of this build (make web)");
}

}  // namespace snug
