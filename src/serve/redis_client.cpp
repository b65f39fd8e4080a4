#include "serve/redis_client.hpp"

#include <hiredis/hiredis.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "base/error.hpp"

namespace snug {

namespace {

using std::chrono::milliseconds;

/// How long Redis is left alone after a failure, and after several.
constexpr milliseconds kFirstPause{1000}, kLongestPause{8000};
/// Nothing that we ask for is as large, or has as many elements.
constexpr std::size_t kMostReplyBytes = 16 * kMiB, kMostElements = 4096;
/// Whoever interrupts waits so long.
constexpr milliseconds kSlice{50};

std::string unescaped(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr == text.data() + i + 3) {
      result += static_cast<char>(value);
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

template <class T>
bool parse_number(std::string_view text, T& into) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
  return error == std::errc() && end == text.data() + text.size();
}

void parse_host(std::string_view text, RedisAddress& address) {
  const bool bracketed = text.starts_with('[');
  const std::size_t closed = bracketed ? text.find(']') : text.npos;
  if (bracketed && closed == text.npos) fail<UsageError>("--redis: the bracket of \"{}\" is not closed", text);
  const std::size_t colon = bracketed ? (closed + 1 < text.size() ? closed + 1 : text.npos) : text.rfind(':');
  if (colon != text.npos &&
      (text[colon] != ':' || !parse_number(text.substr(colon + 1), address.port) || address.port == 0))
    fail<UsageError>("--redis: \"{}\" has no port from 1 to 65535 after its colon", text);
  address.host = bracketed ? text.substr(1, closed - 1) : text.substr(0, colon);
  if (address.host.empty() || (!bracketed && address.host.find(':') != text.npos))
    fail<UsageError>("--redis: \"{}\" is no HOST:PORT (IPv6: [::1]:6379)", text);
}

RedisReply taken(const redisReply& reply) {
  RedisReply result;
  switch (reply.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      result.kind = RedisReply::Kind::text;
      result.text.assign(reply.str, reply.len);
      break;
    case REDIS_REPLY_ERROR:
      result.kind = RedisReply::Kind::error;
      result.text.assign(reply.str, reply.len);
      break;
    case REDIS_REPLY_INTEGER:
      result.kind = RedisReply::Kind::integer;
      result.integer = reply.integer;
      break;
    case REDIS_REPLY_ARRAY:
      result.kind = RedisReply::Kind::list;
      for (std::size_t i = 0; i < reply.elements; ++i) result.list.push_back(taken(*reply.element[i]));
      break;
    default:
      break;
  }
  return result;
}

std::size_t bytes_of(const RedisReply& reply) {
  std::size_t bytes = sizeof reply + reply.text.size();
  for (const RedisReply& element : reply.list) bytes += bytes_of(element);
  return bytes;
}

/// Replies are made as usual, but for lists that take memory before their elements come. For all versions of hiredis,
/// which differ in the type of `elements`.
const redisReplyObjectFunctions* usual_functions = nullptr;
template <class Elements>
void* create_list(const redisReadTask* task, Elements elements) {
  if (static_cast<std::size_t>(elements) > kMostElements) return nullptr;
  return usual_functions->createArray(task, elements);
}
const redisReplyObjectFunctions* careful_functions(redisReplyObjectFunctions* usual) {
  static const redisReplyObjectFunctions careful = [&] {
    usual_functions = usual;
    redisReplyObjectFunctions functions = *usual;
    functions.createArray = create_list;
    return functions;
  }();
  return &careful;
}

}  // namespace

std::string RedisAddress::name() const {
  if (!path.empty()) return path;
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

RedisAddress parse_redis_address(const std::string& text) {
  RedisAddress address;
  std::string_view rest = text;
  if (rest.starts_with("rediss://"))
    fail<UsageError>("--redis: there is no TLS here: put a tunnel between (stunnel, spiped, a VPN)");
  if (rest.starts_with("unix:")) {
    rest.remove_prefix(5);
    if (rest.starts_with("//")) rest.remove_prefix(2);
    if (!rest.starts_with('/')) fail<UsageError>("--redis: \"{}\" has no absolute path", text);
  }
  if (rest.starts_with('/')) {
    address.path = rest;
    return address;
  }
  if (!rest.starts_with("redis://")) {
    parse_host(rest, address);
    return address;
  }
  rest.remove_prefix(8);
  if (const std::size_t at = rest.rfind('@'); at != rest.npos) {
    const std::string_view credentials = rest.substr(0, at);
    const std::size_t colon = credentials.find(':');
    address.user = unescaped(credentials.substr(0, colon));
    if (colon != credentials.npos) address.password = unescaped(credentials.substr(colon + 1));
    rest.remove_prefix(at + 1);
  }
  if (const std::size_t slash = rest.find('/'); slash != rest.npos) {
    const std::string_view database = rest.substr(slash + 1);
    if (!database.empty() && !parse_number(database, address.database))
      fail<UsageError>("--redis: \"{}\" is not the number of a database", database);
    rest = rest.substr(0, slash);
  }
  parse_host(rest, address);
  return address;
}

RedisClient::RedisClient(RedisAddress address, milliseconds timeout)
    : address_(std::move(address)), timeout_(timeout), pause_(kFirstPause) {}

RedisClient::~RedisClient() {
  disconnect();
}

void RedisClient::disconnect() noexcept {
  if (context_) redisFree(context_);
  context_ = nullptr;
}

std::optional<std::vector<RedisReply>> RedisClient::run(const std::vector<RedisCommand>& commands) {
  if (open_circuit() || interrupted_) return {};
  try {
    if (!context_) connect();
    auto replies = exchange(commands, Clock::now() + timeout_);
    pause_ = kFirstPause;
    return replies;
  } catch (const IoError& e) {
    // What still comes would be taken for replies to something else.
    disconnect();
    error_ = e.what();
    closed_until_ = (Clock::now() + pause_).time_since_epoch().count();
    pause_ = std::min(2 * pause_, kLongestPause);
    return {};
  }
}

void RedisClient::connect() {
  const Clock::time_point deadline = Clock::now() + timeout_;
  context_ = address_.path.empty() ? redisConnectNonBlock(address_.host.c_str(), address_.port)
                                   : redisConnectUnixNonBlock(address_.path.c_str());
  if (!context_) fail<IoError>("no memory for a connection");
  if (context_->err) fail<IoError>("{}", context_->errstr);
  wait_for(POLLOUT, deadline);
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(context_->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error != 0) fail<IoError>("{}", std::strerror(error));
  context_->reader->fn = const_cast<redisReplyObjectFunctions*>(careful_functions(context_->reader->fn));
  std::vector<RedisCommand> greeting;
  if (!address_.user.empty())
    greeting.push_back({"AUTH", address_.user, address_.password});
  else if (!address_.password.empty())
    greeting.push_back({"AUTH", address_.password});
  if (address_.database > 0) greeting.push_back({"SELECT", std::to_string(address_.database)});
  if (greeting.empty()) return;
  for (const RedisReply& reply : exchange(greeting, deadline))
    if (reply.kind == RedisReply::Kind::error) fail<IoError>("{}", reply.text);
}

void RedisClient::wait_for(short events, Clock::time_point deadline) {
  while (true) {
    if (interrupted_) fail<IoError>("the server stops");
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) fail<IoError>("no answer within {} ms", timeout_.count());
    pollfd wanted{context_->fd, events, 0};
    const int n = poll(&wanted, 1, static_cast<int>(std::min(left, kSlice).count()));
    if (n > 0) return;
    if (n < 0 && errno != EINTR) fail<IoError>("poll: {}", std::strerror(errno));
  }
}

std::vector<RedisReply> RedisClient::exchange(const std::vector<RedisCommand>& commands, Clock::time_point deadline) {
  const auto must = [this](int result) {
    if (result != REDIS_OK) fail<IoError>("{}", context_->errstr);
  };
  for (const RedisCommand& command : commands) {
    std::vector<const char*> arguments;
    std::vector<std::size_t> sizes;
    for (const std::string& argument : command) {
      arguments.push_back(argument.data());
      sizes.push_back(argument.size());
    }
    must(redisAppendCommandArgv(context_, static_cast<int>(command.size()), arguments.data(), sizes.data()));
  }
  std::vector<RedisReply> replies;
  std::size_t bytes = 0;
  for (int written = 0; replies.size() < commands.size();) {
    // Redis answers while we write: whoever did not read then could wait for ever.
    wait_for(static_cast<short>(written ? POLLIN : POLLIN | POLLOUT), deadline);
    if (!written) must(redisBufferWrite(context_, &written));
    pollfd readable{context_->fd, POLLIN, 0};
    if (poll(&readable, 1, 0) <= 0) continue;
    must(redisBufferRead(context_));
    if (bytes + context_->reader->len > kMostReplyBytes) fail<IoError>("an answer has more bytes than were asked for");
    while (replies.size() < commands.size()) {
      void* next = nullptr;
      must(redisGetReplyFromReader(context_, &next));
      if (!next) break;
      const std::unique_ptr<redisReply, decltype(&freeReplyObject)> reply(static_cast<redisReply*>(next),
                                                                          &freeReplyObject);
      replies.push_back(taken(*reply));
      bytes += bytes_of(replies.back());
      if (bytes > kMostReplyBytes) fail<IoError>("an answer has more bytes than were asked for");
    }
  }
  return replies;
}

}  // namespace snug
