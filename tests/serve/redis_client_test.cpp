// The connection to Redis: addresses, and what becomes of a server that refuses, is silent or talks nonsense.

#include "serve/redis_client.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <thread>

#include "base/descriptor.hpp"
#include "base/error.hpp"

namespace snug {
namespace {

using namespace std::chrono_literals;

/// Sends `answer` to whoever says something, and goes on listening until it is closed.
class FakeServer {
public:
  explicit FakeServer(std::string answer) : answer_(std::move(answer)), socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    std::signal(SIGPIPE, SIG_IGN);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(socket_.get(), 8) != 0 ||
        getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw std::runtime_error("no socket");
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~FakeServer() {
    shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }
  std::uint16_t port = 0;

private:
  void run() {
    while (true) {
      const Descriptor client(accept(socket_.get(), nullptr, nullptr));
      if (!client.open()) return;
      char buffer[1 << 16];
      while (read(client.get(), buffer, sizeof buffer) > 0)
        for (std::string_view left = answer_; !left.empty();) {
          const ssize_t n = send(client.get(), left.data(), left.size(), MSG_NOSIGNAL);
          if (n <= 0) break;
          left.remove_prefix(static_cast<std::size_t>(n));
        }
    }
  }
  std::string answer_;
  Descriptor socket_;
  std::thread thread_;
};

RedisAddress at(std::uint16_t port) {
  RedisAddress address;
  address.host = "127.0.0.1";
  address.port = port;
  return address;
}

TEST(RedisAddressTest, Forms) {
  const auto parsed = [](const std::string& text) {
    const RedisAddress a = parse_redis_address(text);
    return fmt::format("{} user={} password={} database={}", a.name(), a.user, a.password, a.database);
  };
  EXPECT_EQ(parsed("cache"), "cache:6379 user= password= database=0");
  EXPECT_EQ(parsed("cache:7000"), "cache:7000 user= password= database=0");
  EXPECT_EQ(parsed("[::1]:7000"), "[::1]:7000 user= password= database=0");
  EXPECT_EQ(parsed("[::1]"), "[::1]:6379 user= password= database=0");
  EXPECT_EQ(parsed("/run/redis.sock"), "/run/redis.sock user= password= database=0");
  EXPECT_EQ(parsed("unix:///run/redis.sock"), "/run/redis.sock user= password= database=0");
  EXPECT_EQ(parsed("redis://:a%40b@cache:7000/3"), "cache:7000 user= password=a@b database=3");
  EXPECT_EQ(parsed("redis://me:p:w@cache/"), "cache:6379 user=me password=p:w database=0");
  EXPECT_EQ(parsed("redis://cache"), "cache:6379 user= password= database=0");
  for (const char* wrong : {"", ":6379", "cache:", "cache:0", "cache:65536", "cache:x", "::1", "[::1", "[::1]x",
                            "redis://:pw@cache:1/x", "redis://:pw@", "rediss://cache", "unix:relative"})
    try {
      parse_redis_address(wrong);
      ADD_FAILURE() << wrong;
    } catch (const UsageError& e) {
      EXPECT_EQ(std::string(e.what()).find("pw"), std::string::npos) << e.what();
    }
}

TEST(RedisClientTest, Replies) {
  const FakeServer binary(std::string("$3\r\na\0b\r\n", 9));
  RedisClient client(at(binary.port), 30s);
  const auto replies = client.run({{"GET", "x"}});
  ASSERT_TRUE(replies) << client.error();
  EXPECT_EQ(replies->at(0).text, std::string("a\0b", 3));
  const FakeServer several("+OK\r\n:7\r\n$-1\r\n-ERR no\r\n*2\r\n$1\r\nx\r\n:1\r\n");
  RedisClient other(at(several.port), 30s);
  const auto all = other.run({{"A"}, {"B"}, {"C"}, {"D"}, {"E"}});
  ASSERT_TRUE(all) << other.error();
  using Kind = RedisReply::Kind;
  EXPECT_EQ(all->at(0).text, "OK");
  EXPECT_EQ(all->at(1).integer, 7);
  EXPECT_EQ(all->at(2).kind, Kind::nil);
  EXPECT_EQ(all->at(3).kind, Kind::error);
  EXPECT_EQ(all->at(4).list.at(0).text, "x");
  EXPECT_FALSE(other.open_circuit());
}

TEST(RedisClientTest, AfterAFailureItIsLeftAlone) {
  std::uint16_t closed;
  {
    const FakeServer gone("");
    closed = gone.port;
  }
  RedisClient client(at(closed), 30s);
  EXPECT_FALSE(client.run({{"PING"}}));
  EXPECT_TRUE(client.open_circuit());
  EXPECT_NE(client.error().find("refused"), std::string::npos) << client.error();
  EXPECT_FALSE(client.run({{"PING"}}));
}

TEST(RedisClientTest, SilenceHasABound) {
  const FakeServer silent("");
  RedisClient client(at(silent.port), 50ms);
  EXPECT_FALSE(client.run({{"PING"}}));
  EXPECT_NE(client.error().find("within 50 ms"), std::string::npos) << client.error();
  RedisClient interrupted(at(silent.port), 1h);
  std::thread other([&] { interrupted.interrupt(); });
  EXPECT_FALSE(interrupted.run({{"PING"}}));
  other.join();
}

TEST(RedisClientTest, NonsenseIsAnError) {
  for (const std::string& nonsense :
       {std::string("hello\r\n"), std::string("HTTP/1.1 400 Bad Request\r\n\r\n"), std::string("*2000000000\r\n:1\r\n"),
        std::string("*5000\r\n"), "$100000000\r\n" + std::string(40'000'000, 'x'), std::string("$-5\r\n"),
        std::string("$99999999999999999999\r\n")}) {
    const FakeServer server(nonsense);
    RedisClient client(at(server.port), 30s);
    EXPECT_FALSE(client.run({{"GET", "x"}})) << nonsense.substr(0, 40);
    EXPECT_TRUE(client.open_circuit());
  }
}

}  // namespace
}  // namespace snug
