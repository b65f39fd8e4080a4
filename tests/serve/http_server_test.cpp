// The server's connections: what a reply is told of a client that leaves, and what is let go when an answer ends.

#include "serve/http_server.hpp"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <thread>

namespace snug {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::seconds kLong{10};

template <class F>
bool comes_true(F condition) {
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class HttpServerTest : public ::testing::Test {
protected:
  /// Asks for a path, which no one has answered yet. The connection stays.
  std::shared_ptr<HttpReply> ask() {
    asked_ = {};
    auto reply = asked_.get_future();
    asio::write(client_, asio::buffer(std::string_view("GET / HTTP/1.1\r\nHost: a\r\n\r\n")));
    return reply.get();
  }
  void connect() { client_.connect({asio::ip::make_address("127.0.0.1"), server_.port()}); }
  void read_answer() {
    asio::streambuf answer;
    asio::read_until(client_, answer, "the answer");
  }

  std::promise<std::shared_ptr<HttpReply>> asked_;
  HttpServer server_{"127.0.0.1",
                     0,
                     [this](HttpRequest, std::shared_ptr<HttpReply> reply) { asked_.set_value(std::move(reply)); },
                     {},
                     {}};
  asio::io_context io_;
  tcp::socket client_{io_};
};

TEST_F(HttpServerTest, WhoIsToldOfAClientThatLeavesIsLetGoWhenTheAnswerEnds) {
  connect();
  for (const bool late : {false, true}) {
    auto reply = ask();
    const std::weak_ptr<HttpReply> watched = reply;
    const auto tell = [&] { reply->on_gone([reply] { FAIL() << "it was answered"; }); };
    if (!late) tell();
    reply->send({.body = "the answer"});
    read_answer();
    if (late) tell();
    reply = nullptr;
    EXPECT_TRUE(comes_true([&] { return watched.expired(); })) << late;
  }
  client_.close();
  EXPECT_TRUE(comes_true([&] { return server_.connections() == 0; }));
}

TEST_F(HttpServerTest, WhoLeavesLeavesTheLastRequest) {
  connect();
  const auto first = ask();
  first->send({.body = "the answer"});
  read_answer();
  const auto second = ask();
  std::atomic<int> left{0};
  second->on_gone([&] { left += 1; });
  first->on_gone([&] { left += 100; });
  client_.close();
  EXPECT_TRUE(comes_true([&] { return left > 0; }));
  EXPECT_EQ(left, 1);
}

}  // namespace
}  // namespace snug
