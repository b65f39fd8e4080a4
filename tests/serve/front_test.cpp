// What stands before the APIs: readiness, other origins, the record of requests.

#include "serve/front.hpp"

#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>

namespace snug {
namespace {

/// What a client would have seen.
struct Seen {
  HttpResponse response;
  std::string stream;
  std::function<void()> leave;
  std::string header(const std::string& name) const {
    for (const auto& [key, value] : response.headers)
      if (key == name) return value;
    return {};
  }
};

class FakeReply final : public HttpReply {
public:
  explicit FakeReply(Seen& seen) : seen_(seen) {}
  void send(HttpResponse response) override { seen_.response = std::move(response); }
  void begin(std::string_view type, HttpHeaders headers) override {
    seen_.response = {200, std::string(type), {}, std::move(headers)};
  }
  void write(std::string text) override { seen_.stream += text; }
  void end() override {}
  void on_gone(std::function<void()> f) override { seen_.leave = std::move(f); }

private:
  Seen& seen_;
};

class FrontTest : public ::testing::Test {
protected:
  Seen ask(Front& front, HttpRequest request) {
    Seen seen;
    front.handle(std::move(request), std::make_shared<FakeReply>(seen));
    return seen;
  }
  FrontOptions options() {
    return {.origins = {},
            .log = [this](const std::string& line) { lines_.push_back(nlohmann::json::parse(line)); },
            .refusal = [](int status, const std::string& path,
                          const std::string& why) { return HttpResponse{status, "text/plain", path + ": " + why}; }};
  }
  static HttpRequest get(const std::string& path, HttpHeaders headers = {}) { return {"GET", path, "", "", headers}; }
  std::vector<nlohmann::json> lines_;
};

TEST_F(FrontTest, ItIsReadyOnceItIsOpenAndUntilItDrains) {
  Front front(options());
  EXPECT_EQ(ask(front, get("/ready")).response.status, 503);
  EXPECT_EQ(ask(front, get("/health")).response.status, 200);
  const Seen early = ask(front, get("/v1/models"));
  EXPECT_EQ(early.response.status, 503);
  EXPECT_EQ(early.response.body, "/v1/models: the model is loaded");
  EXPECT_NE(early.header("Retry-After"), "");
  std::shared_ptr<HttpReply> under_way;
  front.open([&](HttpRequest, std::shared_ptr<HttpReply> reply) { under_way = std::move(reply); });
  EXPECT_EQ(ask(front, get("/ready")).response.status, 200);
  Seen slow;
  front.handle(get("/slow"), std::make_shared<FakeReply>(slow));
  auto drained = std::async(std::launch::async, [&] { front.drain(std::chrono::seconds(20)); });
  while (ask(front, get("/ready")).response.status == 200) std::this_thread::yield();
  EXPECT_EQ(ask(front, get("/v1/models")).response.status, 503);
  EXPECT_EQ(drained.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  under_way->send({.body = "done"});
  under_way = nullptr;
  EXPECT_EQ(drained.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(slow.response.body, "done");
}

TEST_F(FrontTest, DrainingEndsInTime) {
  Front front(options());
  std::shared_ptr<HttpReply> under_way;
  front.open([&](HttpRequest, std::shared_ptr<HttpReply> reply) { under_way = std::move(reply); });
  Seen slow;
  front.handle(get("/slow"), std::make_shared<FakeReply>(slow));
  front.drain(std::chrono::milliseconds(20));
  under_way = nullptr;
}

TEST_F(FrontTest, OtherOriginsAreLetInOnlyWhenTheyAreNamed) {
  const HttpRequest preflight = {"OPTIONS",
                                 "/v1/models",
                                 "",
                                 "",
                                 {{"origin", "https://a.org"},
                                  {"access-control-request-method", "POST"},
                                  {"access-control-request-headers", "x-api-key"}}};
  const auto answer = [](HttpRequest request, const std::shared_ptr<HttpReply>& reply) {
    if (request.method == "OPTIONS") return reply->send({.status = 405, .body = {}});
    if (request.path == "/stream") return reply->begin("text/event-stream");
    reply->send({.body = "{}"});
  };
  Front closed(options());
  closed.open(answer);
  EXPECT_EQ(ask(closed, get("/x", {{"origin", "https://a.org"}})).header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(ask(closed, preflight).response.status, 405);
  FrontOptions some = options();
  some.origins = {"https://a.org"};
  Front front(some);
  front.open(answer);
  for (const char* path : {"/x", "/stream", "/ready"}) {
    EXPECT_EQ(ask(front, get(path, {{"origin", "https://a.org"}})).header("Access-Control-Allow-Origin"),
              "https://a.org");
    EXPECT_EQ(ask(front, get(path, {{"origin", "https://a.org.evil"}})).header("Access-Control-Allow-Origin"), "");
    EXPECT_EQ(ask(front, get(path)).header("Access-Control-Allow-Origin"), "");
  }
  const Seen allowed = ask(front, preflight);
  EXPECT_EQ(allowed.response.status, 200);
  EXPECT_EQ(allowed.header("Access-Control-Allow-Headers"), "x-api-key");
  some.origins = {"*"};
  Front all(some);
  all.open(answer);
  EXPECT_EQ(ask(all, get("/x", {{"origin", "https://b.org"}})).header("Access-Control-Allow-Origin"), "https://b.org");
}

TEST_F(FrontTest, EveryRequestIsRecordedWithoutItsText) {
  Front front(options());
  front.open([](HttpRequest request, const std::shared_ptr<HttpReply>& reply) {
    if (request.path == "/nothing") return;
    reply->note_tokens({});
    reply->begin("text/event-stream");
    reply->write("secret");
    reply->note_tokens({7, 3, 2});
    reply->note_tokens({1, 0, 4});
    reply->end();
  });
  HttpRequest request = get("/chat\n\"\xff");
  request.query = "key=secret", request.body = "secret";
  ask(front, request);
  ASSERT_EQ(lines_.size(), 1u);
  const nlohmann::json& line = lines_[0];
  EXPECT_EQ(line["method"], "GET");
  EXPECT_EQ(line["status"], 200);
  EXPECT_EQ(line["bytes"], 6);
  EXPECT_EQ(line["prompt_tokens"], 8);
  EXPECT_EQ(line["cached_tokens"], 3);
  EXPECT_EQ(line["generated_tokens"], 6);
  EXPECT_LE(line["first_token_seconds"], line["seconds"]);
  EXPECT_EQ(line.dump().find("secret"), std::string::npos);
  EXPECT_EQ(line["time"].get<std::string>().size(), std::string("2026-01-01T00:00:00.000Z").size());
  EXPECT_EQ(ask(front, get("/nothing")).response.body, "/nothing: no answer");
  EXPECT_EQ(lines_.back()["status"], 500);
  EXPECT_FALSE(lines_.back().contains("prompt_tokens"));
}

TEST_F(FrontTest, WhoLeftIsRecorded) {
  Front front(options());
  std::shared_ptr<HttpReply> under_way;
  front.open([&](HttpRequest, std::shared_ptr<HttpReply> reply) { under_way = std::move(reply); });
  Seen seen;
  front.handle(get("/slow"), std::make_shared<FakeReply>(seen));
  bool told = false;
  under_way->on_gone([&] { told = true; });
  seen.leave();
  EXPECT_TRUE(told);
  under_way = nullptr;
  EXPECT_EQ(lines_.back()["left"], true);
}

}  // namespace
}  // namespace snug
