#include "serve/http_server.hpp"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include "base/error.hpp"
#include "base/log.hpp"

namespace snug {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using Code = boost::system::error_code;

/// What all connections share. Used on the server's thread but for what is atomic.
struct Shared {
  HttpHandler handler;
  HttpRefusal refusal;
  HttpLimits limits;
  std::atomic<std::size_t> connections{0}, answering{0};
  std::atomic<bool> draining{false};
  std::atomic<Bytes> bodies{0};
};

/// What a body takes of HttpLimits::bodies.
class BodyRoom {
public:
  explicit BodyRoom(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  ~BodyRoom() { shared_->bodies -= bytes_; }
  BodyRoom(const BodyRoom&) = delete;
  BodyRoom& operator=(const BodyRoom&) = delete;
  /// False when there is no room for a body of so many bytes.
  bool grow(Bytes bytes) {
    const Bytes more = bytes - std::exchange(bytes_, bytes);
    return (shared_->bodies += more) <= shared_->limits.bodies;
  }

private:
  std::shared_ptr<Shared> shared_;
  Bytes bytes_ = 0;
};

/// The path and query of what was asked for, which may be a whole URI (RFC 9112, 3.2.2).
std::string_view origin_form(std::string_view target) {
  const std::size_t scheme = target.starts_with("http://") ? 7 : target.starts_with("https://") ? 8 : 0;
  if (scheme == 0) return target;
  const std::size_t path = target.find('/', scheme);
  return path == target.npos ? "/" : target.substr(path);
}

class Connection : public std::enable_shared_from_this<Connection> {
public:
  Connection(tcp::socket socket, std::shared_ptr<Shared> shared)
      : stream_(std::move(socket)), timer_(stream_.get_executor()), shared_(std::move(shared)) {
    ++shared_->connections;
  }
  ~Connection() { --shared_->connections; }

  void read() {
    if (shared_->draining) return close();
    if (buffer_.size() == 0) buffer_.shrink_to_fit();  // thousands may be idle
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(shared_->limits.header));
    parser_->body_limit(shared_->limits.body);
    stream_.expires_after(shared_->limits.idle);
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = shared_from_this()](Code error, std::size_t) { self->on_header(error); });
  }

  /// Whole answers and pieces of streams go out in order.
  void write(std::string bytes, bool last) {
    if (gone_) return;
    unread_ += bytes.size();
    if (unread_ > shared_->limits.unread + bytes.size()) return give_up();  // one piece may be larger
    outgoing_.push_back(std::move(bytes));
    last_ = last;
    if (outgoing_.size() == 1) write_next();
  }
  void begin(int status, std::string_view type, const HttpHeaders& headers, std::optional<std::size_t> length) {
    http::response<http::empty_body> head(static_cast<http::status>(status), version_);
    head.set(http::field::content_type, beast::string_view(type.data(), type.size()));
    for (const auto& [name, value] : headers) head.set(name, value);
    begun_ = true;
    chunked_ = !length && version_ >= 11;
    keep_ = keep_ && !shared_->draining && (length || chunked_);
    if (length)
      head.content_length(*length);
    else if (chunked_)
      head.chunked(true);
    head.keep_alive(keep_);
    if (!length) head.set(http::field::cache_control, "no-cache");
    std::ostringstream text;
    text << head.base();
    write(std::move(text).str(), false);
  }
  void send(HttpResponse response) {
    begin(response.status, response.type, response.headers, response.body.size());
    write(head_only_ ? std::string() : std::move(response.body), true);
  }
  void write_piece(std::string text) {
    if (!text.empty() && !head_only_)
      write(chunked_ ? fmt::format("{:x}\r\n{}\r\n", text.size(), text) : std::move(text), false);
  }
  void end() { write(chunked_ && !head_only_ ? "0\r\n\r\n" : "", true); }

  /// Of the request with this number; once it is answered there is nobody left to leave, and what f holds is let go.
  void on_gone(std::size_t answer, std::function<void()> f) {
    if (answer != answer_) return;
    if (gone_)
      f();
    else if (answering_)
      on_gone_ = std::move(f);
  }
  auto executor() { return stream_.get_executor(); }

private:
  /// Nobody is there any more, or was too slow.
  static bool lost(Code error) {
    return error == beast::error::timeout || (error && error.category() == asio::error::get_system_category());
  }
  void on_header(Code error) {
    if (error == http::error::end_of_stream || lost(error)) return close();
    if (error == http::error::header_limit) return refuse(431, "the header is too large");
    if (error == http::error::body_limit) return refuse(413, "the body is too large");
    if (error) return refuse(400, error.message());
    version_ = parser_->get().version();
    if (const auto length = parser_->content_length(); length && *length > shared_->limits.body)
      return refuse(413, fmt::format("the body has {} bytes, at most {} are taken", *length, shared_->limits.body));
    parser_->eager(true);
    stream_.expires_after(shared_->limits.body_time);
    if (!beast::iequals(parser_->get()[http::field::expect], "100-continue")) return read_body();
    asio::async_write(stream_, asio::buffer(kContinue), [self = shared_from_this()](Code failed, std::size_t) {
      if (failed) return self->close();
      self->read_body();
    });
  }
  void read_body() {
    if (!room_) room_ = std::make_shared<BodyRoom>(shared_);
    if (!room_->grow(parser_->get().body().size())) return refuse(503, "too many large bodies at a time");
    if (parser_->is_done()) return answer();
    http::async_read_some(stream_, buffer_, *parser_, [self = shared_from_this()](Code error, std::size_t) {
      if (error == http::error::body_limit) return self->refuse(413, "the body is too large");
      if (lost(error)) return self->close();
      if (error) return self->refuse(400, error.message());
      self->read_body();
    });
  }
  void answer();

  /// Tells what is wrong with what was sent so far, and closes.
  void refuse(int status, const std::string& why) {
    keep_ = head_only_ = false;
    const std::string target = parser_ ? std::string(parser_->get().target()) : std::string();
    room_ = nullptr;
    parser_.reset();
    begin_answer();
    if (!shared_->refusal) return send({status, "text/plain; charset=utf-8", why + "\n"});
    send(shared_->refusal(status, target.substr(0, target.find('?')), why));
  }
  void begin_answer() {
    gone_ = false, last_ = false, begun_ = false, answering_ = true;
    unread_ = 0;
    ++shared_->answering;
  }
  void end_answer() {
    if (std::exchange(answering_, false)) --shared_->answering;
    on_gone_ = nullptr;
  }

  /// While it is answered, a client that has left is noticed.
  void watch() {
    wait(tcp::socket::wait_read, [this] {
      char byte;
      Code failed;
      tcp::socket& socket = stream_.socket();
      socket.non_blocking(true, failed);
      const std::size_t n = socket.receive(asio::buffer(&byte, 1), tcp::socket::message_peek, failed);
      if (failed == asio::error::eof || has_said_all()) return ask_whether_gone();
      if (failed && failed != asio::error::would_block) return give_up();
      if (n == 0) return watch();
      // The next request is there, and would wake this at once again.
      timer_.expires_after(std::chrono::milliseconds(500));
      timer_.async_wait([self = shared_from_this(), answer = answer_](Code error) {
        if (!error && self->answer_ == answer && self->answering_) self->watch();
      });
    });
  }
  /// Also when there is something left to read.
  bool has_said_all() {
    tcp_info info{};
    socklen_t size = sizeof(info);
    return getsockopt(stream_.socket().native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_state == TCP_CLOSE_WAIT;
  }
  /// It has closed its side: has it left, or does it only have nothing more to say? Who has left answers whatever is
  /// sent with a reset; others take no notice of an interim response, which came with HTTP/1.1.
  void ask_whether_gone() {
    if (!begun_ && version_ < 11) return give_up();
    wait(tcp::socket::wait_error, [this] { give_up(); });
    Code failed;
    if (!begun_) stream_.socket().send(asio::buffer(kContinue), 0, failed);
  }
  /// Calls f when that has come to pass while this request is answered.
  template <class F>
  void wait(tcp::socket::wait_type what, F f) {
    stream_.socket().async_wait(what, [self = shared_from_this(), answer = answer_, f](Code error) {
      if (!error && self->answer_ == answer && self->answering_) f();
    });
  }
  void give_up() {
    if (std::exchange(gone_, true)) return;
    const auto f = std::exchange(on_gone_, nullptr);
    end_answer();
    if (f) f();
    close();
  }

  void write_next() {
    stream_.expires_after(shared_->limits.write_time);
    asio::async_write(stream_, asio::buffer(outgoing_.front()), [self = shared_from_this()](Code error, std::size_t) {
      if (error) return self->give_up();
      self->unread_ -= self->outgoing_.front().size();
      self->outgoing_.pop_front();
      if (!self->outgoing_.empty()) return self->write_next();
      if (self->last_) return self->finished();
      self->stream_.expires_never();  // until there is more to say
    });
  }
  void finished() {
    end_answer();
    if (keep_) return read();
    linger();
  }
  /// What the client still sends is read for a while, or it might not see the answer.
  void linger() {
    Code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(2));
    drain();
  }
  void drain() {
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(4096), [self = shared_from_this()](Code error, std::size_t) {
      if (error) return self->close();
      self->drain();
    });
  }
  void close() {
    Code ignored;
    stream_.socket().close(ignored);
  }

  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  beast::tcp_stream stream_;
  asio::steady_timer timer_;
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<BodyRoom> room_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::deque<std::string> outgoing_;
  std::size_t unread_ = 0, answer_ = 0;
  unsigned version_ = 11;
  bool keep_ = false, chunked_ = false, head_only_ = false, last_ = false, answering_ = false, gone_ = false,
       begun_ = false;
  std::function<void()> on_gone_;
};

/// Of the n-th request of a connection.
class Reply final : public HttpReply {
public:
  Reply(std::shared_ptr<Connection> connection, std::size_t n) : connection_(std::move(connection)), n_(n) {}
  ~Reply() override {
    if (!begun_) send({500, "text/plain; charset=utf-8", "no answer\n"});
    if (begun_ && !ended_) end();
  }
  void send(HttpResponse response) override {
    begun_ = ended_ = true;
    post([response = std::move(response)](Connection& c) mutable { c.send(std::move(response)); });
  }
  void begin(std::string_view type, HttpHeaders headers) override {
    begun_ = true;
    post([type = std::string(type), headers = std::move(headers)](Connection& c) { c.begin(200, type, headers, {}); });
  }
  void write(std::string text) override {
    post([text = std::move(text)](Connection& c) mutable { c.write_piece(std::move(text)); });
  }
  void end() override {
    ended_ = true;
    post([](Connection& c) { c.end(); });
  }
  void on_gone(std::function<void()> f) override {
    post([n = n_, f = std::move(f)](Connection& c) mutable { c.on_gone(n, std::move(f)); });
  }

private:
  template <class F>
  void post(F&& f) {
    asio::post(connection_->executor(), [c = connection_, f = std::forward<F>(f)]() mutable { f(*c); });
  }
  std::shared_ptr<Connection> connection_;
  std::size_t n_;
  std::atomic<bool> begun_{false}, ended_{false};
};

void Connection::answer() {
  const auto& message = parser_->get();
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string_view target = origin_form({message.target().data(), message.target().size()});
  const std::size_t question = target.find('?');
  request.path = target.substr(0, question);
  if (question != target.npos) request.query = target.substr(question + 1);
  for (const auto& field : message) {
    std::string name(field.name_string());
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  keep_ = message.keep_alive();
  head_only_ = message.method() == http::verb::head;
  request.body = std::move(parser_->get().body());
  request.room = std::move(room_);
  room_ = nullptr;
  ++answer_;
  begin_answer();
  stream_.expires_never();
  watch();
  shared_->handler(std::move(request), std::make_shared<Reply>(shared_from_this(), answer_));
}

}  // namespace

struct HttpServer::State {
  asio::io_context io;
  tcp::acceptor acceptor{io};
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  std::thread thread;

  void run() {
    while (!io.stopped()) {
      try {
        io.run();
      } catch (const std::exception& e) {  // no memory: of one connection, which is gone with it
        log(LogLevel::error, "a connection failed: {}", e.what());
      }
    }
  }
  void accept() {
    acceptor.async_accept([this](Code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor.is_open()) return;
      if (error) {
        // Out of descriptors: others may become free.
        log(LogLevel::warn, "cannot take a connection: {}", error.message());
        auto wait = std::make_shared<asio::steady_timer>(io, std::chrono::milliseconds(100));
        return wait->async_wait([this, wait](Code) { accept(); });
      }
      Code ignored;
      socket.set_option(tcp::no_delay(true), ignored);
      std::make_shared<Connection>(std::move(socket), shared)->read();
      accept();
    });
  }
};

HttpServer::HttpServer(const std::string& host, std::uint16_t port, HttpHandler handler, HttpLimits limits,
                       HttpRefusal refusal)
    : state_(std::make_unique<State>()) {
  state_->shared->handler = std::move(handler);
  state_->shared->limits = limits;
  state_->shared->refusal = std::move(refusal);
  Code error;
  const auto found = tcp::resolver(state_->io).resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error) fail<IoError>("cannot listen on \"{}\": {}", host, error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor& acceptor = state_->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(1024, error);
  if (error) fail<IoError>("cannot listen on {}:{}: {}", host, port, error.message());
  state_->accept();
  state_->thread = std::thread([this] { state_->run(); });
}

HttpServer::~HttpServer() {
  state_->io.stop();
  state_->thread.join();
}

std::uint16_t HttpServer::port() const {
  return state_->acceptor.local_endpoint().port();
}

std::size_t HttpServer::connections() const {
  return state_->shared->connections;
}

void HttpServer::drain(std::chrono::milliseconds most) {
  state_->shared->draining = true;
  asio::post(state_->io, [this] {
    Code ignored;
    state_->acceptor.close(ignored);
  });
  const auto end = std::chrono::steady_clock::now() + most;
  while (state_->shared->answering > 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

}  // namespace snug
