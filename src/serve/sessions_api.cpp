#include "serve/sessions_api.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "serve/openai_api.hpp"
#include "serve/openai_shapes.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestName = 128;
constexpr std::string_view kSuffix = ".kv";

const std::string& folder_of(const ServedModel& m) {
  if (m.options.sessions_folder.empty())
    throw ApiError(501, "invalid_request_error", "this server saves no sessions: it was started without --sessions DIR",
                   {}, "sessions_disabled");
  return m.options.sessions_folder;
}

/// Nothing that could lead out of the folder.
fs::path path_of(const ServedModel& m, const std::string& name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  if (name.empty() || name.size() > kLongestName || name[0] == '.' || !std::all_of(name.begin(), name.end(), plain))
    bad_field("name", fmt::format("'name' must have 1 to {} letters, digits, '.', '_' and '-', and not begin with '.'",
                                  kLongestName));
  return fs::path(folder_of(m)) / (name + std::string(kSuffix));
}

/// What saving and restoring have in common: one piece of work, and an answer.
class SessionTask : public SchedulerTask {
public:
  SessionTask(std::string name, fs::path path, std::shared_ptr<HttpReply> reply)
      : name_(std::move(name)), path_(std::move(path)), reply_(std::move(reply)) {}
  bool step(Model& model, PrefixStore& prefixes, std::size_t) override {
    try {
      work(model, prefixes);
    } catch (const OutOfBudget&) {
      throw;
    } catch (const IoError&) {
      throw;
    } catch (const ApiError& e) {
      reply_->send(openai_error(e));
    } catch (const Error& e) {
      reply_->send(openai_error({400, "invalid_request_error", e.what(), "name"}));
    }
    return false;
  }
  void fail(const std::string& why) override { reply_->send(openai_error({503, "server_error", why})); }

protected:
  virtual void work(Model& model, PrefixStore& prefixes) = 0;
  void done(const char* action, std::size_t tokens) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start_;
    std::error_code unknown;
    reply_->send({.body = dump({{"action", action},
                                {"name", name_},
                                {"tokens", tokens},
                                {"bytes", fs::file_size(path_, unknown)},
                                {"seconds", took.count()}})});
  }

  std::string name_;
  fs::path path_;
  std::shared_ptr<HttpReply> reply_;

private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

class SaveTask final : public SessionTask {
public:
  SaveTask(std::string name, fs::path path, std::shared_ptr<HttpReply> reply, std::vector<TokenId> tokens)
      : SessionTask(std::move(name), std::move(path), std::move(reply)), tokens_(std::move(tokens)) {}

private:
  void work(Model& model, PrefixStore& prefixes) override {
    const auto sequence = prefixes.find(tokens_);
    if (!sequence)
      throw ApiError(409, "invalid_request_error",
                     "nothing is kept of this conversation: have it answered first, then save it", {}, "not_kept");
    model.bring_back(*sequence);
    fs::create_directories(path_.parent_path());
    model.save(*sequence, std::span(tokens_).first(sequence->length()), path_.string());
    done("save", sequence->length());
  }
  std::vector<TokenId> tokens_;
};

class RestoreTask final : public SessionTask {
public:
  RestoreTask(std::string name, fs::path path, std::shared_ptr<HttpReply> reply, std::size_t context)
      : SessionTask(std::move(name), std::move(path), std::move(reply)), context_(context) {}

private:
  void work(Model& model, PrefixStore& prefixes) override {
    std::vector<TokenId> tokens;
    auto sequence = model.load_sequence(path_.string(), context_, tokens);
    const std::size_t count = tokens.size();
    prefixes.add(std::move(tokens), std::move(sequence));
    done("restore", count);
  }
  std::size_t context_;
};

void require(const fs::path& path, const std::string& name) {
  std::error_code unknown;
  if (!fs::is_regular_file(path, unknown))
    throw ApiError(404, "invalid_request_error", fmt::format("there is no session \"{}\"", name), "name",
                   "session_not_found");
}

}  // namespace

void list_sessions(ServedModel& m, const HttpRequest&, std::shared_ptr<HttpReply> reply) {
  Json sessions = Json::array();
  std::error_code unknown;
  for (const auto& entry : fs::directory_iterator(folder_of(m), unknown)) {
    if (entry.path().extension() != kSuffix) continue;
    try {
      const KvFile file = KvFile::open(entry.path().string());
      if (m.model.saved_here(file))
        sessions.push_back({{"name", entry.path().stem().string()},
                            {"tokens", file.tokens().size()},
                            {"bytes", entry.file_size(unknown)}});
    } catch (const Error&) {
      // Damaged, or no session: not one that can be restored.
    }
  }
  std::sort(sessions.begin(), sessions.end(), [](const Json& a, const Json& b) { return a["name"] < b["name"]; });
  reply->send({.body = dump({{"sessions", std::move(sessions)}})});
}

void change_session(ServedModel& m, const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
  const Json body = parse_body(request);
  const std::string action = text_field(body, "action"), name = text_field(body, "name");
  const fs::path path = path_of(m, name);
  if (action == "save") {
    const Json& messages = field_of(body, "messages");
    std::vector<TokenId> tokens =
        messages.is_null() ? m.encode(text_field(body, "prompt"), false)
                           : m.chat_prompt(checked_messages(messages), openai_tools(field_of(body, "tools")), {});
    if (tokens.empty()) bad_field("messages", "'messages' or a 'prompt' must say what to save");
    // All of it may be kept.
    tokens.push_back(0);
    m.scheduler.submit(std::make_shared<SaveTask>(name, path, std::move(reply), std::move(tokens)));
  } else if (action == "restore") {
    require(path, name);
    m.scheduler.submit(std::make_shared<RestoreTask>(name, path, std::move(reply), m.scheduler.context()));
  } else if (action == "erase") {
    require(path, name);
    std::error_code error;
    if (!fs::remove(path, error))
      throw ApiError(500, "server_error", fmt::format("\"{}\" cannot be removed: {}", name, error.message()));
    reply->send({.body = dump({{"action", "erase"}, {"name", name}})});
  } else {
    bad_field("action", "'action' must be save, restore or erase");
  }
}

}  // namespace snug
