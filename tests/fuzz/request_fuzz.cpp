// Fuzz target over requests: a path, a line's end and a body, up to where the scheduler would take over (it has
// stopped, and nothing compiles grammars). Anything but a snug::Error is a finding: clients would get a 500.

#include <map>

#include "serve/anthropic_api.hpp"
#include "serve/ollama_api.hpp"
#include "serve/openai_api.hpp"
#include "serve/status_api.hpp"
#include "support/tiny_session.hpp"

namespace {

using namespace snug;

const std::map<std::string, ApiHandler, std::less<>> kHandlers = {
    {"/v1/chat/completions", openai_chat},
    {"/v1/completions", openai_completions},
    {"/v1/messages", anthropic_messages},
    {"/v1/messages/count_tokens", anthropic_count_tokens},
    {"/api/chat", ollama_chat},
    {"/api/generate", ollama_generate},
    {"/api/show", ollama_show},
    {"/snug/memory", page_memory},
};

struct Deaf final : HttpReply {
  void send(HttpResponse) override {}
  void begin(std::string_view, HttpHeaders) override {}
  void write(std::string) override {}
  void end() override {}
  void on_gone(std::function<void()>) override {}
};

struct Server {
  Server() {
    scheduler.stop();
    model.stop();
  }
  testing_support::TinyEngine engine{{.context = 1024}, {.max_rows = 64, .context = 1024}, 1};
  Scheduler scheduler{engine.model, engine.ledger, {.context = 1024}};
  ServedModel model{engine.model, engine.ledger, scheduler, options()};

  static ApiOptions options() {
    ApiOptions options;
    options.chat_template = "chatml";
    return options;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Server server;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t line = text.find('\n');
  const auto handler = kHandlers.find(text.substr(0, line));
  if (line == text.npos || handler == kHandlers.end()) return 0;
  HttpRequest request;
  request.method = "POST", request.path = handler->first;
  request.body = text.substr(line + 1);
  try {
    handler->second(server.model, request, std::make_shared<Deaf>());
  } catch (const Error&) {
  }
  return 0;
}
