#pragma once
/// Prefixes that replicas share through Redis: behind the PrefixStore as a tier that others fill, too. A thread of its
/// own talks to Redis; pages are read and written where they are, while the scheduler's thread, whose they are, goes
/// on. Nobody waits for Redis longer than a bound, and whatever it does, or does not do, no request fails of it.

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model/model.hpp"
#include "serve/prefix_store.hpp"
#include "serve/shared_entries.hpp"

namespace snug {

struct SharedOptions {
  SharedLimits limits;
  /// A request waits so long to hear what Redis has, and then so long, and 10 ms for each MB, for that to come.
  std::chrono::milliseconds wait{300};
  /// Told when Redis stops answering, and when it answers again. On any thread.
  std::function<void(const std::string&)> tell;
};

struct SharedStats {
  std::uint64_t hits = 0, misses = 0;  ///< requests that waited for Redis, and what came of it
  std::uint64_t late = 0;              ///< misses because Redis took too long
  std::uint64_t refused = 0;           ///< misses because something was damaged, gone or no entry at all
  std::uint64_t published = 0;         ///< sequences
  std::uint64_t dropped = 0;           ///< not published: memory was needed, or others came sooner
  std::uint64_t errors = 0;            ///< times that Redis did not answer, or said no
  Bytes received = 0, sent = 0;        ///< of parts
  bool open = false;                   ///< Redis is left alone
};

/// What one request asks for. Belongs to SharedPrefixes.
struct SharedFetch;

class SharedPrefixes {
public:
  /// Fewer tokens are read sooner than fetched.
  static constexpr std::size_t kWorth = 256;
  using Time = std::chrono::steady_clock::time_point;

  SharedPrefixes(std::unique_ptr<RedisLink> link, SharedOptions options);
  ~SharedPrefixes();
  SharedPrefixes(const SharedPrefixes&) = delete;
  SharedPrefixes& operator=(const SharedPrefixes&) = delete;

  SharedStats stats() const;  ///< thread-safe

  // What follows is the scheduler's, and of its thread.
  /// `wake` is called (on another thread) when ready() has become true; `note` with what is worth an event, also that
  /// there is no room for what is on its way: then nothing is shared.
  void start(Model& model, Ledger& ledger, std::size_t context, std::function<void()> wake,
             std::function<void(const std::string&)> note);
  /// Waits for the end of what is being said, and lets go of all sequences.
  void stop();

  /// Asks for what begins as `tokens` do, if that is worth it when `there` of them are there already; null: it is not.
  std::shared_ptr<SharedFetch> ask(const std::vector<TokenId>& tokens, std::size_t there);
  /// Whether it is worth waiting; once it is not, it never is again.
  bool pending(SharedFetch& fetch);
  /// When that ends at the latest.
  Time deadline(const SharedFetch& fetch) const;
  /// A sequence with these tokens has been kept.
  void offer(const std::vector<TokenId>& tokens);
  /// There is something for work().
  bool ready() const;
  /// Gives what has come to `prefixes`, and shows what is to be sent. `make_room`: memory for so many bytes, or false.
  void work(PrefixStore& prefixes, const std::function<bool(Bytes)>& make_room);
  /// Memory is short: what is being sent is let go. Returns false when there was nothing.
  bool let_go();

private:
  struct Publication;
  using FetchPtr = std::shared_ptr<SharedFetch>;

  // Of the scheduler's thread.
  void accept(const FetchPtr& fetch, PrefixStore& prefixes, const std::function<bool(Bytes)>& make_room);
  void show(PrefixStore& prefixes);

  // Of the other one.
  void run();
  /// Does something with Redis. Returns false when that does not answer.
  bool ask_redis(const std::function<void()>& f);
  void work_on(const FetchPtr& fetch);
  void look_up(SharedFetch& fetch);
  /// Returns false when nobody waits any more.
  bool receive(SharedFetch& fetch);
  void take_parts(SharedFetch& fetch, std::size_t most, std::vector<std::byte>& into);
  bool refresh(const SharedEntries::Found& found, const SharedEntries::Manifest& manifest);
  /// Whether these tokens are to be sent.
  bool wants(const std::vector<TokenId>& tokens);
  /// One piece. Returns whether there is more.
  bool send(Publication& publication);
  bool drop();

  void count(std::uint64_t SharedStats::* what, std::uint64_t times = 1);
  void alert();
  void report(const std::string& what);

  std::unique_ptr<RedisLink> link_;
  SharedOptions options_;
  Model* model_ = nullptr;
  std::size_t context_ = 0;
  Reservation in_flight_;
  std::function<void()> wake_scheduler_;
  std::function<void(const std::string&)> note_;

  // Of the thread.
  std::unique_ptr<SharedEntries> entries_;
  std::map<SharedEntries::Name, Time> refreshed_;
  bool answered_ = true;  ///< the last time
  bool refused_ = false;  ///< and that was told

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<FetchPtr> fetches_;
  std::deque<std::vector<TokenId>> offers_;
  std::optional<std::vector<TokenId>> wanted_;  ///< to be shown by work()
  std::unique_ptr<Publication> publication_;
  SharedStats stats_;
  bool ready_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace snug
