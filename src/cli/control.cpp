#include "cli/control.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/descriptor.hpp"
#include "base/error.hpp"
#include "base/log.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostBytes = 256;  // of an order or an answer
constexpr int kTimeout = 60'000;         // milliseconds: a large model takes a while to be read

std::string control_folder() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return runtime && *runtime ? std::string(runtime) + "/snug" : "/tmp/snug-" + std::to_string(getuid());
}

std::string control_path(long pid) {
  return control_folder() + "/" + std::to_string(pid) + ".sock";
}

/// Throws IoError when the path is too long for a socket.
sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) fail<IoError>("{} is too long for a socket", path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

/// Up to a newline; "" when the other side says nothing in time.
std::string read_line(int fd) {
  std::string line;
  while (line.size() < kMostBytes) {
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, kTimeout) <= 0) return "";
    char c;
    if (read(fd, &c, 1) != 1) return line;
    if (c == '\n') return line;
    line += c;
  }
  return line;
}

void write_line(int fd, const std::string& line) {
  const std::string text = line + "\n";
  // A client that has gone is no reason to end.
  [[maybe_unused]] const ssize_t sent = send(fd, text.data(), text.size(), MSG_NOSIGNAL);
}

}  // namespace

struct ControlServer::State {
  State(BudgetKeeper& b, const Ledger& l) : budget(b), ledger(l) {}

  BudgetKeeper& budget;
  const Ledger& ledger;
  std::string path;
  Descriptor listener, stop;
  std::thread thread;

  bool open() {
    const std::string folder = control_folder();
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return false;
    struct stat info{};
    if (stat(folder.c_str(), &info) != 0 || info.st_uid != getuid()) return false;
    path = control_path(getpid());
    const sockaddr_un address = address_of(path);
    unlink(path.c_str());
    listener = Descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    stop = Descriptor(eventfd(0, EFD_CLOEXEC));
    return listener.open() && stop.open() &&
           bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 &&
           chmod(path.c_str(), 0600) == 0 && listen(listener.get(), 4) == 0;
  }

  std::string obey(const std::string& order) {
    constexpr std::string_view kResize = "resize ";
    if (!order.starts_with(kResize)) return "error: unknown order";
    try {
      budget.set(parse_size(std::string_view(order).substr(kResize.size())));
    } catch (const Error& e) {
      return std::string("error: ") + e.what();
    }
    const LedgerReport report = ledger.report();
    return fmt::format("ok: {} of {} used, {} of it weights", format_bytes(report.used), format_bytes(report.limit),
                       format_bytes(report.by_tag[static_cast<std::size_t>(Tag::weights)]));
  }

  void serve() {
    for (;;) {
      pollfd wait[] = {{listener.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
      if (poll(wait, 2, -1) < 0 && errno != EINTR) return;
      if (wait[1].revents) return;
      if (!(wait[0].revents & POLLIN)) continue;
      const Descriptor client(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client.open()) write_line(client.get(), obey(read_line(client.get())));
    }
  }
};

ControlServer::ControlServer(BudgetKeeper& budget, const Ledger& ledger)
    : state_(std::make_unique<State>(budget, ledger)) {
  try {
    if (state_->open()) {
      state_->thread = std::thread([state = state_.get()] { state->serve(); });
      return;
    }
    log(LogLevel::debug, "no control socket: {}", std::strerror(errno));
  } catch (const IoError& e) {
    log(LogLevel::debug, "no control socket: {}", e.what());
  }
}

ControlServer::~ControlServer() {
  if (state_->thread.joinable()) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(state_->stop.get(), &one, sizeof(one));
    state_->thread.join();
  }
  if (!state_->path.empty()) unlink(state_->path.c_str());
}

std::string send_control(long pid, const std::string& line) {
  const std::string path = control_path(pid);
  const sockaddr_un address = address_of(path);
  const Descriptor connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!connection.open() ||
      connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    fail<IoError>("process {} does not listen: {}", pid, std::strerror(errno));
  write_line(connection.get(), line);
  const std::string answer = read_line(connection.get());
  if (answer.empty()) fail<IoError>("process {} gave no answer", pid);
  return answer;
}

}  // namespace snug
