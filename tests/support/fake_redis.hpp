#pragma once
/// A Redis in memory, with the few commands that are used, which several links may have in common and which fails when
/// it is told to.

#include <algorithm>
#include <condition_variable>
#include <limits>
#include <map>
#include <mutex>
#include <set>

#include "serve/redis_client.hpp"

namespace snug::testing_support {

struct FakeRedis {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::string> values;
  std::map<std::string, double> used;                             ///< the only sorted set
  std::size_t answers = std::numeric_limits<std::size_t>::max();  ///< so many commands are answered, then none
  std::string stops_at;  ///< it holds who begins with this command; "*": whoever asks
  std::size_t held = 0;  ///< who is held

  RedisReply answer(const RedisCommand& c) {
    const auto integer = [](std::size_t n) {
      return RedisReply{RedisReply::Kind::integer, {}, static_cast<std::int64_t>(n), {}};
    };
    const auto text = [](std::string s) { return RedisReply{RedisReply::Kind::text, std::move(s), 0, {}}; };
    if (c[0] == "PING") return text("PONG");
    if (c[0] == "GET") {
      const auto found = values.find(c[1]);
      return found == values.end() ? RedisReply() : text(found->second);
    }
    if (c[0] == "SET") {
      if (c.back() == "NX" && values.contains(c[1])) return {};
      values[c[1]] = c[2];
      return text("OK");
    }
    if (c[0] == "EXPIRE") return integer(values.contains(c[1]) ? 1 : 0);
    if (c[0] == "UNLINK") {
      std::size_t removed = 0;
      for (std::size_t i = 1; i < c.size(); ++i) removed += values.erase(c[i]);
      return integer(removed);
    }
    if (c[0] == "ZADD") {
      for (std::size_t i = 2; i + 1 < c.size(); i += 2) used[c[i + 1]] = std::stod(c[i]);
      return integer(0);
    }
    if (c[0] == "ZCARD") return integer(used.size());
    if (c[0] == "ZREMRANGEBYSCORE") {
      const double end = std::stod(c[3].substr(1));
      return integer(std::erase_if(used, [&](const auto& member) { return member.second < end; }));
    }
    if (c[0] == "ZPOPMIN") {
      RedisReply list{RedisReply::Kind::list, {}, 0, {}};
      for (int n = std::stoi(c[2]); n > 0 && !used.empty(); --n) {
        const auto least = std::min_element(used.begin(), used.end(),
                                            [](const auto& a, const auto& b) { return a.second < b.second; });
        list.list.push_back(text(least->first));
        list.list.push_back(text(std::to_string(least->second)));
        used.erase(least);
      }
      return list;
    }
    return {RedisReply::Kind::error, "ERR unknown command", 0, {}};
  }

  std::vector<std::string> keys(const std::string& kind) {
    const std::lock_guard lock(mutex);
    std::vector<std::string> result;
    for (const auto& [key, value] : values)
      if (key.find(":" + kind + ":") != key.npos) result.push_back(key);
    return result;
  }
  void stop_at(const std::string& command) {
    {
      const std::lock_guard lock(mutex);
      stops_at = command;
    }
    changed.notify_all();
  }
  /// Until somebody is held.
  void wait_for_held() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return held > 0; });
  }
};

class FakeLink final : public RedisLink {
public:
  explicit FakeLink(FakeRedis& redis) : redis_(redis) {}
  std::optional<std::vector<RedisReply>> run(const std::vector<RedisCommand>& commands) override {
    std::unique_lock lock(redis_.mutex);
    const auto held = [&] { return redis_.stops_at == "*" || redis_.stops_at == commands.at(0).at(0); };
    ++redis_.held;
    if (held()) redis_.changed.notify_all();
    redis_.changed.wait(lock, [&] { return !held() || interrupted_; });
    --redis_.held;
    if (interrupted_) return {};
    std::vector<RedisReply> replies;
    for (const RedisCommand& command : commands) {
      if (redis_.answers == 0) return {};
      --redis_.answers;
      replies.push_back(redis_.answer(command));
    }
    return replies;
  }
  std::string error() const override { return "it is told to fail"; }
  std::string name() const override { return "fake"; }
  bool open_circuit() const override { return false; }
  void interrupt() override {
    {
      const std::lock_guard lock(redis_.mutex);
      interrupted_ = true;
    }
    redis_.changed.notify_all();
  }

private:
  FakeRedis& redis_;
  bool interrupted_ = false;
};

}  // namespace snug::testing_support
