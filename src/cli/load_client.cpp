#include "cli/load_client.hpp"

#include <curl/curl.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "cli/certificates.hpp"

namespace snug {

namespace {

using Clock = std::chrono::steady_clock;

class Clockwork {
public:
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

private:
  Clock::time_point start_ = Clock::now();
};

/// A conversation under way.
struct Talk {
  const LoadConversation* conversation;
  const Clockwork* clock;
  nlohmann::json messages = nlohmann::json::array();
  std::size_t turn = 0;
  double next_at = 0;
  bool busy = false;
  std::string body, pending, raw, answer;
  LoadResult result;

  bool done() const { return turn >= conversation->turns.size(); }

  void take_event(std::string_view event) {
    constexpr std::string_view kData = "data: ";
    if (!event.starts_with(kData) || event == "data: [DONE]") return;
    const auto json = nlohmann::json::parse(event.substr(kData.size()), nullptr, false);
    if (!json.is_object()) return;
    if (json.contains("error")) result.error = json["error"].dump();
    if (const auto usage = json.find("usage"); usage != json.end() && usage->is_object()) {
      result.prompt_tokens = usage->value("prompt_tokens", std::size_t{0});
      result.tokens = usage->value("completion_tokens", std::size_t{0});
    }
    if (!json.contains("choices") || json["choices"].empty()) return;
    const auto& delta = json["choices"][0].value("delta", nlohmann::json::object());
    const auto text = delta.find("content");
    if (text == delta.end() || !text->is_string() || text->get_ref<const std::string&>().empty()) return;
    answer += text->get<std::string>();
    result.piece_times.push_back(clock->now());
  }
  void take(std::string_view data) {
    if (raw.size() < 2000) raw += data;
    pending += data;
    std::size_t at = 0;
    for (std::size_t end; (end = pending.find("\n\n", at)) != pending.npos; at = end + 2)
      take_event(std::string_view(pending).substr(at, end - at));
    pending.erase(0, at);
  }
};

std::size_t on_data(char* data, std::size_t size, std::size_t count, void* talk) {
  static_cast<Talk*>(talk)->take({data, size * count});
  return size * count;
}

struct Headers {
  curl_slist* list = nullptr;
  ~Headers() { curl_slist_free_all(list); }
};

CURL* start_turn(Talk& talk, const LoadTarget& target, const Headers& headers) {
  const LoadTurn& turn = talk.conversation->turns[talk.turn];
  if (talk.messages.empty() && !talk.conversation->system.empty())
    talk.messages.push_back({{"role", "system"}, {"content", talk.conversation->system}});
  talk.messages.push_back({{"role", "user"}, {"content", turn.question}});
  nlohmann::json body = {{"model", target.model},
                         {"messages", talk.messages},
                         {"max_tokens", turn.max_tokens},
                         {"temperature", target.temperature},
                         {"seed", target.seed},
                         {"stream", true},
                         {"stream_options", {{"include_usage", true}}}};
  if (target.ignore_end) body["ignore_eos"] = true;
  if (!target.stop.empty()) body["stop"] = target.stop;
  talk.body = body.dump();
  talk.pending.clear(), talk.raw.clear(), talk.answer.clear();
  talk.result = {};
  talk.result.start = talk.clock->now();
  talk.busy = true;
  CURL* curl = curl_easy_init();
  if (!curl) fail<IoError>("cannot initialise libcurl");
  curl_easy_setopt(curl, CURLOPT_URL, (target.url + "/chat/completions").c_str());
  trust_certificates(curl);
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, talk.body.c_str());
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(talk.body.size()));
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.list);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &talk);
  curl_easy_setopt(curl, CURLOPT_PRIVATE, &talk);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT, target.timeout_seconds);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  return curl;
}

/// The next turn, if there is one, waits for its time.
LoadResult end_turn(Talk& talk, CURL* curl, CURLcode code) {
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  LoadResult result = std::move(talk.result);
  result.end = talk.clock->now();
  if (code != CURLE_OK)
    result.error = curl_easy_strerror(code);
  else if (status != 200)
    result.error = fmt::format("HTTP {}: {}", status, talk.raw.substr(0, 300));
  if (result.tokens == 0) result.tokens = result.piece_times.size();
  talk.busy = false;
  talk.messages.push_back({{"role", "assistant"}, {"content", talk.answer}});
  ++talk.turn;
  if (!result.error.empty()) talk.turn = talk.conversation->turns.size();
  if (!talk.done()) talk.next_at = result.end + talk.conversation->turns[talk.turn].think_seconds;
  return result;
}

}  // namespace

std::vector<LoadResult> run_load(const LoadTarget& target, const std::vector<LoadConversation>& load) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURLM, decltype(&curl_multi_cleanup)> multi(
      initialised == CURLE_OK ? curl_multi_init() : nullptr, curl_multi_cleanup);
  if (!multi) fail<IoError>("cannot initialise libcurl");
  Headers headers;
  headers.list = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!target.key.empty())
    headers.list = curl_slist_append(headers.list, ("Authorization: Bearer " + target.key).c_str());
  const Clockwork clock;
  std::vector<Talk> talks;
  for (const LoadConversation& c : load) {
    Talk& talk = talks.emplace_back();
    talk.conversation = &c;
    talk.clock = &clock;
    talk.next_at = c.at;
  }
  std::vector<LoadResult> results;
  while (true) {
    double wait = 1;
    bool left = false;
    for (Talk& talk : talks) {
      if (talk.done()) continue;
      left = true;
      if (talk.busy) continue;
      const double missing = talk.next_at - clock.now();
      if (missing <= 0)
        curl_multi_add_handle(multi.get(), start_turn(talk, target, headers));
      else
        wait = std::min(wait, missing);
    }
    if (!left) return results;
    int running = 0;
    curl_multi_perform(multi.get(), &running);
    int in_queue = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &in_queue)) {
      CURL* curl = message->easy_handle;
      char* talk = nullptr;
      curl_easy_getinfo(curl, CURLINFO_PRIVATE, &talk);
      results.push_back(end_turn(*reinterpret_cast<Talk*>(talk), curl, message->data.result));
      curl_multi_remove_handle(multi.get(), curl);
      curl_easy_cleanup(curl);
    }
    curl_multi_poll(multi.get(), nullptr, 0, static_cast<int>(wait * 1000) + 1, nullptr);
  }
}

}  // namespace snug
