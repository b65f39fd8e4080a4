#include "serve/shared_prefixes.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "generate/common_prefix.hpp"

namespace snug {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostFetches = 64, kMostOffers = 16;
/// What comes slower is not waited for.
constexpr Bytes kLeastRate = 100'000;  // bytes a millisecond
/// Commands, replies, and what is copied from one to the other.
constexpr Bytes kInFlight = 4 * SharedEntries::kTogether * kKvPartBytes;
/// Pages stay locked while so much of them is hashed.
constexpr Bytes kHashed = 8 * kMiB;
constexpr std::size_t kMostRefreshed = 4096;
constexpr int kMostDamaged = 4;

/// The beginning of a file whose rest has not come.
class HeadFile final : public RandomAccessFile {
public:
  HeadFile(std::vector<std::byte> head, Bytes size) : head_(std::move(head)), size_(size) {}
  Bytes size() const override { return size_; }
  const std::string& path() const override { return path_; }
  void read(Bytes offset, std::span<std::byte> into) const override {
    if (offset > head_.size() || into.size() > head_.size() - offset) fail<IoError>("{}: its head is longer", path_);
    std::memcpy(into.data(), head_.data() + offset, into.size());
  }

private:
  std::string path_ = "the entry in Redis";
  std::vector<std::byte> head_;
  Bytes size_;
};

}  // namespace

struct SharedFetch {
  enum class State {
    asked,    ///< the thread is to look it up
    found,    ///< the scheduler is to make room
    granted,  ///< the thread is to bring it
    useless,  ///< the thread is to see that nobody finds it again
    arrived,  ///< the scheduler is to take it
    failed,   ///< it is to let go of it
    ended
  };
  std::vector<TokenId> tokens;
  std::size_t least;
  Clock::time_point deadline;
  State state = State::asked;
  bool given_up = false;

  // Of the thread, then of the scheduler, then of the thread again.
  SharedEntries::Found entry{};
  SharedEntries::Manifest manifest{};
  std::unique_ptr<KvFile> head{};
  std::size_t next = 0;           ///< part
  std::vector<std::byte> rest{};  ///< what has come and is in no page yet
  std::unique_ptr<Sequence> sequence{};
  std::vector<std::span<std::byte>> pages{};
};

/// A sequence that is being sent.
struct SharedPrefixes::Publication {
  std::vector<TokenId> tokens;
  bool exact = false;
  bool over = false;
  // Of the thread: how far it is.
  bool prepared = false, asked = false;
  SharedEntries::Manifest manifest{};  ///< without sizes until all names are there
  std::vector<std::size_t> left{};     ///< parts to be sent, the next one last
  std::mutex mutex{};                  ///< held while the thread reads pages
  std::unique_ptr<Sequence> sequence;  ///< null: let go
  std::unique_ptr<KvImage> image;
};

SharedPrefixes::SharedPrefixes(std::unique_ptr<RedisLink> link, SharedOptions options)
    : link_(std::move(link)), options_(std::move(options)) {}

SharedPrefixes::~SharedPrefixes() {
  stop();
}

void SharedPrefixes::start(Model& model, Ledger& ledger, std::size_t context, std::function<void()> wake,
                           std::function<void(const std::string&)> note) {
  model_ = &model;
  context_ = context;
  wake_scheduler_ = std::move(wake);
  note_ = std::move(note);
  try {
    in_flight_ = ledger.reserve(Tag::scratch, kInFlight);
    entries_ = std::make_unique<SharedEntries>(*link_, options_.limits, model.kv_identity());
  } catch (const Error& e) {
    return report(fmt::format("nothing is shared through Redis: {}", e.what()));
  }
  thread_ = std::thread([this] { run(); });
}

void SharedPrefixes::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  link_->interrupt();
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  fetches_.clear();
  publication_ = nullptr;
  in_flight_.release();
}

SharedStats SharedPrefixes::stats() const {
  const std::lock_guard lock(mutex_);
  SharedStats stats = stats_;
  stats.open = link_->open_circuit();
  return stats;
}

std::shared_ptr<SharedFetch> SharedPrefixes::ask(const std::vector<TokenId>& tokens, std::size_t there) {
  if (tokens.size() <= there + kWorth || link_->open_circuit()) return nullptr;
  auto fetch = std::make_shared<SharedFetch>(SharedFetch{{}, there + kWorth, Clock::now() + options_.wait});
  fetch->tokens.assign(tokens.begin(), tokens.end() - 1);  // the last one's logits are wanted
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable() || fetches_.size() >= kMostFetches) return nullptr;
    fetches_.push_back(fetch);
  }
  wake_.notify_one();
  return fetch;
}

bool SharedPrefixes::pending(SharedFetch& f) {
  using State = SharedFetch::State;
  const std::lock_guard lock(mutex_);
  if (f.given_up || f.state == State::failed || f.state == State::useless || f.state == State::ended) return false;
  // It is the scheduler's turn, which is about to take it.
  if (f.state == State::found || f.state == State::arrived || Clock::now() < f.deadline) return true;
  f.given_up = true;
  ++stats_.late, ++stats_.misses;
  return false;
}

SharedPrefixes::Time SharedPrefixes::deadline(const SharedFetch& fetch) const {
  const std::lock_guard lock(mutex_);
  return fetch.deadline;
}

void SharedPrefixes::offer(const std::vector<TokenId>& tokens) {
  if (tokens.size() < kWorth || link_->open_circuit()) return;
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) return;
    offers_.push_back(tokens);
    if (offers_.size() > kMostOffers) offers_.pop_front(), ++stats_.dropped;
  }
  wake_.notify_one();
}

bool SharedPrefixes::ready() const {
  const std::lock_guard lock(mutex_);
  return ready_;
}

void SharedPrefixes::alert() {
  {
    const std::lock_guard lock(mutex_);
    ready_ = true;
  }
  wake_scheduler_();
}

void SharedPrefixes::report(const std::string& what) {
  note_(what);
  if (options_.tell) options_.tell(what);
}

// The scheduler's side.

void SharedPrefixes::work(PrefixStore& prefixes, const std::function<bool(Bytes)>& make_room) {
  using State = SharedFetch::State;
  std::vector<FetchPtr> fetches;
  {
    const std::lock_guard lock(mutex_);
    if (!ready_) return;
    ready_ = false;
    std::erase_if(fetches_, [](const FetchPtr& f) {
      if (f->state != State::failed) return false;
      f->sequence = nullptr;  // on this thread, whoever else still knows it
      return true;
    });
    for (const FetchPtr& f : fetches_)
      if (f->state == State::found || f->state == State::arrived) fetches.push_back(f);
    if (publication_ && publication_->over) publication_ = nullptr;
  }
  for (const FetchPtr& fetch : fetches) accept(fetch, prefixes, make_room);
  show(prefixes);
  wake_.notify_one();
}

void SharedPrefixes::accept(const FetchPtr& f, PrefixStore& prefixes, const std::function<bool(Bytes)>& make_room) {
  using State = SharedFetch::State;
  const auto becomes = [&](State state) {
    const std::lock_guard lock(mutex_);
    f->state = state;
    if (state == State::failed || state == State::ended) std::erase(fetches_, f);
  };
  if (f->state == State::arrived) {
    try {
      prefixes.add(f->head->tokens(), std::move(f->sequence));
    } catch (const OutOfBudget&) {
      return becomes(State::failed);
    }
    {
      const std::lock_guard lock(mutex_);
      if (!f->given_up) ++stats_.hits;
      // Who waited for the same need not wait for it again.
      for (const FetchPtr& other : fetches_) ready_ = ready_ || other->state == State::found;
    }
    return becomes(State::ended);
  }
  // Another has brought it, or is about to.
  if (prefixes.longest(f->tokens) + kWorth > f->entry.shared) {
    count(&SharedStats::hits);
    return becomes(State::ended);
  }
  {
    const std::lock_guard lock(mutex_);
    for (const FetchPtr& other : fetches_)
      if (other->state == State::granted && other->entry.manifest == f->entry.manifest) {
        f->deadline = other->deadline;
        return;
      }
  }
  State after = State::granted;
  try {
    if (make_room(model_->kv_bytes(f->head->tokens().size())))
      f->sequence = model_->receive(*f->head, context_, f->pages);
    else
      after = State::failed;
  } catch (const OutOfBudget&) {
    after = State::failed;
  } catch (const Error& e) {
    report(fmt::format("what Redis has is refused: {}", e.what()));
    count(&SharedStats::refused);
    after = State::useless;
  }
  if (after != State::granted) count(&SharedStats::misses);
  {
    const std::lock_guard lock(mutex_);
    f->deadline = Clock::now() + options_.wait + milliseconds(f->manifest.bytes / kLeastRate);
  }
  becomes(after);
}

void SharedPrefixes::show(PrefixStore& prefixes) {
  std::optional<std::vector<TokenId>> wanted;
  {
    const std::lock_guard lock(mutex_);
    if (!wanted_ || publication_) return;
    wanted = wanted_;  // which stays meanwhile, or the next offer would be taken before this one can be found
  }
  auto publication = std::make_unique<Publication>();
  bool there = false;
  prefixes.for_each([&](const PrefixStore::Node& node) {
    if (node.tokens != *wanted) return;
    there = true;
    if (node.sequence->swapped()) return;
    try {
      publication->sequence = node.sequence->fork();
      publication->exact = node.sequence->fork()->truncate(kWorth / 2) < kWorth / 2;
      publication->image = model_->image(*publication->sequence, node.tokens);
    } catch (const Error&) {
      publication->image = nullptr;
    }
  });
  const std::lock_guard lock(mutex_);
  wanted_.reset();
  if (publication->image) {
    publication->tokens = std::move(*wanted);
    publication_ = std::move(publication);
  } else if (there) {  // else one that goes on from it has been offered, too
    ++stats_.dropped;
  }
}

bool SharedPrefixes::let_go() {
  Publication* publication;
  {
    const std::lock_guard lock(mutex_);
    publication = publication_.get();  // which only this thread removes
  }
  if (!publication) return false;
  const std::lock_guard lock(publication->mutex);
  if (!publication->sequence) return false;
  publication->image = nullptr;
  publication->sequence = nullptr;
  return true;
}

// The thread's side.

void SharedPrefixes::count(std::uint64_t SharedStats::* what, std::uint64_t times) {
  const std::lock_guard lock(mutex_);
  stats_.*what += times;
}

bool SharedPrefixes::drop() {
  count(&SharedStats::dropped);
  return false;
}

bool SharedPrefixes::ask_redis(const std::function<void()>& f) {
  if (link_->open_circuit()) return false;
  std::string why;
  try {
    f();
  } catch (const std::exception& e) {
    why = e.what();
  }
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return false;
    if (!why.empty()) ++stats_.errors;
  }
  const bool answers = !link_->open_circuit();
  if (answered_ && !answers)
    report(fmt::format("Redis at {} does not serve ({}): going on without it", link_->name(), why));
  else if (!answered_ && answers)
    report(fmt::format("Redis at {} serves again", link_->name()));
  else if (answers && !why.empty() && !std::exchange(refused_, true))
    report(fmt::format("Redis at {} refuses: {} (told once)", link_->name(), why));
  answered_ = answers;
  return why.empty();
}

void SharedPrefixes::run() {
  using State = SharedFetch::State;
  ask_redis([this] { entries_->check(); });
  while (true) {
    FetchPtr fetch;
    std::optional<std::vector<TokenId>> offered;
    Publication* publication = nullptr;
    const auto next = [&] {
      // What is nearly there comes first, what nobody waits for last.
      for (const State state : {State::granted, State::asked, State::useless})
        for (const FetchPtr& f : fetches_)
          if (f->state == state) {
            fetch = f;
            return true;
          }
      if (publication_ && !publication_->over) {
        publication = publication_.get();
        return true;
      }
      if (publication_ || wanted_ || offers_.empty()) return false;
      offered = std::move(offers_.front());
      offers_.pop_front();
      return true;
    };
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || next(); });
      if (stop_) return;
    }
    bool tell = true;
    if (fetch) {
      work_on(fetch);
    } else if (publication) {
      bool more = false;
      if (!ask_redis([&] { more = send(*publication); })) count(&SharedStats::dropped);
      const std::lock_guard lock(mutex_);
      publication->over = tell = !more;
    } else if (bool wanted = false; ask_redis([&] { wanted = wants(*offered); }) && wanted) {
      const std::lock_guard lock(mutex_);
      wanted_ = std::move(offered);
    } else {
      tell = false;
    }
    if (tell) alert();
  }
}

void SharedPrefixes::work_on(const FetchPtr& fetch) {
  using State = SharedFetch::State;
  SharedFetch& f = *fetch;
  State before;
  {
    const std::lock_guard lock(mutex_);
    before = f.state;
    if (f.given_up && before != State::useless) {
      f.state = State::failed;
      return;
    }
  }
  State after = State::failed;
  ask_redis([&] {
    try {
      if (before == State::useless) return entries_->forget(f.entry);
      if (before == State::asked) {
        look_up(f);
        if (f.head) after = State::found;
      } else if (receive(f)) {
        after = State::arrived;
      }
    } catch (const RedisError&) {
      throw;
    } catch (const Error& e) {
      report(fmt::format("what Redis has is refused: {}", e.what()));
      count(&SharedStats::refused);
      entries_->forget(f.entry);
    }
  });
  {
    const std::lock_guard lock(mutex_);
    if (after == State::failed && before != State::useless && !f.given_up) ++stats_.misses;
    f.state = after == State::found && f.given_up ? State::failed : after;
  }
  if (after != State::arrived) return;
  alert();
  ask_redis([&] { refresh(f.entry, f.manifest); });
}

bool SharedPrefixes::refresh(const SharedEntries::Found& found, const SharedEntries::Manifest& manifest) {
  if (!entries_->refresh(found, manifest)) return false;
  if (refreshed_.size() >= kMostRefreshed) refreshed_.clear();
  refreshed_[found.manifest] = Clock::now();
  return true;
}

void SharedPrefixes::look_up(SharedFetch& f) {
  const auto found = entries_->find(f.tokens, f.least, context_);
  if (!found) return;
  f.entry = *found;
  const auto manifest = entries_->manifest(f.entry);
  if (!manifest) return count(&SharedStats::refused);
  f.manifest = *manifest;
  std::vector<std::byte> head;
  while (head.size() < f.manifest.head_bytes && f.next < f.manifest.parts.size())
    take_parts(f, (f.manifest.head_bytes - head.size() - 1) / kKvPartBytes + 1, head);
  if (head.size() < f.manifest.head_bytes) fail<FormatError>("it has fewer parts than bytes");
  f.rest.assign(head.begin() + static_cast<std::ptrdiff_t>(f.manifest.head_bytes), head.end());
  head.resize(f.manifest.head_bytes);
  auto parsed = std::make_unique<KvFile>(
      KvFile::parse(std::make_unique<HeadFile>(std::move(head), f.manifest.bytes), true, f.manifest.head_bytes));
  // A hash may lie.
  if (parsed->tokens().size() != f.entry.tokens || common_prefix(parsed->tokens(), f.tokens) < f.entry.shared)
    fail<FormatError>("its tokens are others");
  f.head = std::move(parsed);
}

void SharedPrefixes::take_parts(SharedFetch& f, std::size_t most, std::vector<std::byte>& into) {
  for (const std::string& part : entries_->read(f.manifest, f.next, most)) {
    const auto bytes = std::as_bytes(std::span(part));
    into.insert(into.end(), bytes.begin(), bytes.end());
    count(&SharedStats::received, bytes.size());
    ++f.next;
  }
}

bool SharedPrefixes::receive(SharedFetch& f) {
  std::size_t page = 0, filled = 0;
  while (true) {
    std::span<const std::byte> from(f.rest);
    while (!from.empty()) {
      if (page == f.pages.size()) fail<FormatError>("it has more bytes than pages");
      const std::span<std::byte> into = f.pages[page].subspan(filled);
      const std::size_t size = std::min(into.size(), from.size());
      std::memcpy(into.data(), from.data(), size);
      from = from.subspan(size);
      filled += size;
      if (filled == f.pages[page].size()) ++page, filled = 0;
    }
    f.rest.clear();
    if (f.next >= f.manifest.parts.size()) break;
    {
      const std::lock_guard lock(mutex_);
      if (f.given_up || stop_) return false;
    }
    take_parts(f, SharedEntries::kTogether, f.rest);
  }
  if (page < f.pages.size()) fail<FormatError>("it has fewer bytes than pages");
  return true;
}

bool SharedPrefixes::wants(const std::vector<TokenId>& tokens) {
  const std::size_t least = tokens.size() - std::min(tokens.size() - 1, kWorth - 1);
  // What is not whole is removed; then there may be another.
  for (int i = 0; i < kMostDamaged; ++i) {
    const auto found = entries_->find(tokens, least, context_);
    if (!found) return true;
    if (const auto last = refreshed_.find(found->manifest);
        last != refreshed_.end() && Clock::now() - last->second < options_.limits.ttl / 4)
      return false;
    const auto manifest = entries_->manifest(*found);
    if (manifest && refresh(*found, *manifest)) return false;
    if (manifest) entries_->forget(*found);
  }
  return false;
}

bool SharedPrefixes::send(Publication& p) {
  if (!p.prepared) {
    const std::lock_guard lock(p.mutex);
    if (!p.sequence) return drop();
    p.prepared = !p.image->prepare(kHashed);
    return true;
  }
  SharedEntries::Manifest& m = p.manifest;
  if (m.bytes == 0) {
    const std::lock_guard lock(p.mutex);
    if (!p.sequence) return drop();
    const auto& parts = p.image->parts();
    for (Bytes bytes = 0; m.parts.size() < parts.size() && bytes < kHashed; bytes += kKvPartBytes)
      m.parts.push_back(SharedEntries::name_of(parts[m.parts.size()]));
    if (m.parts.size() < parts.size()) return true;
    m.bytes = p.image->bytes(), m.head_bytes = p.image->head_bytes();
  }
  if (!p.asked) {
    p.asked = true;
    const std::vector<bool> missing = entries_->missing(m.parts);
    for (std::size_t i = 0; i < missing.size(); ++i)
      if (missing[i]) p.left.push_back(i);
    std::reverse(p.left.begin(), p.left.end());
    return entries_->make_room(p.left.size() + 1) || drop();
  }
  std::vector<SharedEntries::Name> names;
  std::vector<std::string> parts;
  if (!p.left.empty()) {
    const std::lock_guard lock(p.mutex);
    if (!p.sequence) return drop();
    for (; !p.left.empty() && parts.size() < SharedEntries::kTogether; p.left.pop_back()) {
      names.push_back(m.parts[p.left.back()]);
      std::string& bytes = parts.emplace_back();
      for (const auto& piece : p.image->parts()[p.left.back()])
        bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    }
  }
  if (!parts.empty()) {
    entries_->write(names, parts);
    for (const std::string& part : parts) count(&SharedStats::sent, part.size());
    return true;
  }
  entries_->publish(m, p.tokens, p.exact);
  count(&SharedStats::published);
  return false;
}

}  // namespace snug
