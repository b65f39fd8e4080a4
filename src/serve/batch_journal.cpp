#include "serve/batch_journal.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "base/error.hpp"
#include "format/hash.hpp"
#include "serve/lines.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostResult = std::size_t{1} << 30;
constexpr int kServerErrors = 500;

/// A line is "INDEX STATUS HASH RESULT".
struct Record {
  std::size_t index = 0;
  int status = 0;
  std::size_t result = 0;  ///< where it begins in the line
};

std::uint64_t hash_of_record(const Record& r, std::string_view result) {
  Hash hash;
  hash.add_value(std::uint64_t{r.index}), hash.add_value(r.status);
  hash.add(std::as_bytes(std::span(result)));
  return hash.value();
}

std::optional<Record> parse_record(const Line& line) {
  if (!line.ended || line.size != line.text.size()) return {};
  Record r;
  std::uint64_t hash = 0;
  const char *at = line.text.data(), *end = at + line.text.size();
  const auto take = [&](auto& value, int base) {
    const auto [next, error] = std::from_chars(at, end, value, base);
    if (error != std::errc() || next == end || *next != ' ') return false;
    at = next + 1;
    return true;
  };
  if (!take(r.index, 10) || !take(r.status, 10) || !take(hash, 16)) return {};
  r.result = static_cast<std::size_t>(at - line.text.data());
  if (hash_of_record(r, std::string_view(line.text).substr(r.result)) != hash) return {};
  return r;
}

}  // namespace

BatchJournal::BatchJournal(std::string out) : out_(std::move(out)), path_(out_ + ".part") {
  fd_ = Descriptor(open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd_.open()) fail<IoError>("cannot write {}: {}", path_, std::strerror(errno));
  if (flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) fail("another process is at work on {}", out_);
}

void BatchJournal::begin(const nlohmann::ordered_json& belongs, std::size_t requests) {
  places_.resize(requests);
  const std::string header = nlohmann::ordered_json{{"snug_batch", 1}, {"belongs", belongs}}.dump();
  Line first;
  for_each_line(*open_file(path_), kMostResult, [&](const Line& line) {
    first = line;
    return false;
  });
  auto found = nlohmann::ordered_json::parse(first.text, nullptr, false);
  if (first.ended && found.is_object() && found["snug_batch"] == 1 && found["belongs"].is_object()) {
    for (const auto& [name, value] : belongs.items())
      if (found["belongs"][name] != value)
        fail("{} was begun with another {}: go on with that one, or remove the file to begin anew", path_, name);
    return read();
  }
  // One that was killed here has left a part of this line.
  if (first.ended || !header.starts_with(first.text))
    fail("{} is not of `snug batch`: move it away, or write to another file", path_);
  fresh_ = header + "\n";
  sync();
  sync_folder();
}

void BatchJournal::read() {
  bool header = true;
  for_each_line(*open_file(path_), kMostResult, [&](const Line& line) {
    const auto record = header ? Record{} : parse_record(line);
    if (!record || record->index >= places_.size()) return false;
    if (!header && record->status < kServerErrors)
      put(record->index, line.offset + record->result, line.size - record->result);
    header = false;
    end_ = line.offset + line.size + 1;
    return true;
  });
  if (ftruncate(fd_.get(), static_cast<off_t>(end_)) != 0)
    fail<IoError>("cannot write {}: {}", path_, std::strerror(errno));
}

void BatchJournal::put(std::size_t index, Bytes offset, Bytes size) {
  if (!has(index)) ++size_;
  places_[index] = {offset, size};
}

void BatchJournal::add(std::size_t index, int status, const std::string& result) {
  const std::string head = fmt::format("{} {} {:x} ", index, status, hash_of_record({index, status, 0}, result));
  put(index, end_ + fresh_.size() + head.size(), result.size());
  fresh_ += head + result + "\n";
}

void BatchJournal::sync() {
  std::string_view rest = fresh_;
  if (rest.empty()) return;
  while (!rest.empty()) {
    const ssize_t n = pwrite(fd_.get(), rest.data(), rest.size(), static_cast<off_t>(end_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail<IoError>("cannot write {}: {}; what it has is kept, and the same command goes on from there", path_,
                    std::strerror(errno));
    end_ += static_cast<Bytes>(n);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  if (fdatasync(fd_.get()) != 0) fail<IoError>("cannot write {}: {}", path_, std::strerror(errno));
  fresh_.clear();
}

void BatchJournal::finish() {
  sync();
  // Under a name that is ours alone: what lies beside OUT is the user's.
  const std::string whole = path_ + ".whole";
  remove_abandoned(whole);
  const auto journal = open_file(path_);
  write_atomically(whole, [&](const auto& append) {
    std::string line;
    for (const Place& place : places_) {
      line.resize(place.size + 1);
      journal->read(place.offset, std::as_writable_bytes(std::span(line)));
      append(std::as_bytes(std::span(line)));
    }
  });
  if (rename(whole.c_str(), out_.c_str()) != 0) {
    const int error = errno;
    unlink(whole.c_str());
    fail<IoError>("cannot write {}: {}", out_, std::strerror(error));
  }
  sync_folder();
  unlink(path_.c_str());
}

/// So that the journal does not go before OUT is there, whatever happens to the machine.
void BatchJournal::sync_folder() const {
  const auto slash = path_.rfind('/');
  const std::string folder = slash == path_.npos ? "." : path_.substr(0, slash + 1);
  const Descriptor directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.open()) fsync(directory.get());
}

}  // namespace snug
