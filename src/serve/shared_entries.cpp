#include "serve/shared_entries.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace snug {

namespace {

constexpr std::size_t kBlock = 64;  ///< tokens
/// Sent together.
constexpr std::ptrdiff_t kMostCommands = 512;
constexpr std::size_t kMostMembers = 512;
/// 32 GiB of parts.
constexpr std::size_t kMostParts = std::size_t{1} << 18;
constexpr Bytes kMostHead = 16 * kMiB;

/// A value of the index.
struct IndexValue {
  SharedEntries::Name manifest;
  std::uint64_t tokens, hash;  ///< of all of them
  std::uint64_t exact;
};
static_assert(sizeof(IndexValue) == 40);

struct ManifestHead {
  std::uint64_t bytes, head_bytes;
};

SharedEntries::Name canonical(XXH128_hash_t hash) {
  XXH128_canonical_t big;
  XXH128_canonicalFromHash(&big, hash);
  SharedEntries::Name name;
  std::memcpy(name.data(), big.digest, name.size());
  return name;
}

SharedEntries::Name hash_name(std::string_view bytes) {
  return canonical(XXH3_128bits(bytes.data(), bytes.size()));
}

std::uint64_t hash_after(std::uint64_t before, std::span<const TokenId> tokens) {
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), before);
}

/// Hashes of the first 0, 64, 128, ... tokens.
std::vector<std::uint64_t> chain_of(std::uint64_t identity, std::span<const TokenId> tokens) {
  std::vector<std::uint64_t> chain{identity};
  for (std::size_t at = 0; at + kBlock <= tokens.size(); at += kBlock)
    chain.push_back(hash_after(chain.back(), tokens.subspan(at, kBlock)));
  return chain;
}

/// Of the first `count`.
std::uint64_t whole_hash(const std::vector<std::uint64_t>& chain, std::span<const TokenId> tokens, std::size_t count) {
  const std::size_t blocks = count / kBlock;
  return hash_after(chain[blocks], tokens.subspan(blocks * kBlock, count % kBlock));
}

template <class T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string bytes_of(const SharedEntries::Manifest& manifest) {
  return bytes_of(ManifestHead{manifest.bytes, manifest.head_bytes}) +
         std::string(reinterpret_cast<const char*>(manifest.parts.data()),
                     manifest.parts.size() * sizeof(SharedEntries::Name));
}

std::string now_text(std::chrono::seconds before = {}) {
  const auto now = std::chrono::system_clock::now().time_since_epoch() - before;
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace

SharedEntries::SharedEntries(RedisLink& link, SharedLimits limits, std::uint64_t identity)
    : link_(link),
      limits_(std::move(limits)),
      base_(fmt::format("{}:{{{:016x}}}:", limits_.prefix, identity)),
      ttl_(std::to_string(limits_.ttl.count())),
      identity_(identity) {}

std::vector<RedisReply> SharedEntries::run(const std::vector<RedisCommand>& commands) {
  if (commands.empty()) return {};
  auto replies = link_.run(commands);
  if (!replies) fail<RedisError>("{}", link_.error());
  for (const RedisReply& reply : *replies)
    if (reply.kind == RedisReply::Kind::error) fail<RedisError>("{}", reply.text);
  return std::move(*replies);
}

std::vector<RedisReply> SharedEntries::run_many(std::vector<RedisCommand> commands) {
  std::vector<RedisReply> replies;
  for (auto next = commands.begin(); next != commands.end();) {
    const auto end = next + std::min(kMostCommands, commands.end() - next);
    auto some = run(std::vector<RedisCommand>(std::make_move_iterator(next), std::make_move_iterator(end)));
    std::move(some.begin(), some.end(), std::back_inserter(replies));
    next = end;
  }
  return replies;
}

void SharedEntries::check() {
  run({{"PING"}});
}

std::string SharedEntries::key(char kind, std::span<const std::byte> name) const {
  std::string result = base_;
  result += kind;
  result += ':';
  for (const std::byte b : name) result += fmt::format("{:02x}", static_cast<unsigned>(b));
  return result;
}

RedisCommand SharedEntries::used(std::span<const Name> names) const {
  RedisCommand command{"ZADD", base_ + "used"};
  const std::string now = now_text();
  for (const Name& name : names) {
    command.push_back(now);
    command.push_back(bytes_of(name));
  }
  return command;
}

std::optional<SharedEntries::Found> SharedEntries::find(std::span<const TokenId> tokens, std::size_t least,
                                                        std::size_t most) {
  const std::vector<std::uint64_t> chain = chain_of(identity_, tokens);
  const std::size_t first = std::max<std::size_t>(1, least / kBlock);
  std::vector<RedisCommand> commands;
  for (std::size_t block = chain.size(); block-- > first;)
    commands.push_back({"GET", key('i', std::as_bytes(std::span(&chain[block], 1)))});
  const std::vector<RedisReply> replies = run_many(commands);
  std::optional<Found> found;
  for (std::size_t i = 0; i < replies.size(); ++i) {
    IndexValue value;
    if (replies[i].text.size() != sizeof value) continue;
    std::memcpy(&value, replies[i].text.data(), sizeof value);
    if (found && value.manifest == found->manifest) found->index.push_back(commands[i][1]);
    if (found || value.tokens > most) continue;
    const bool whole = value.tokens <= tokens.size() && whole_hash(chain, tokens, value.tokens) == value.hash;
    const std::size_t shared = whole ? value.tokens : value.exact ? 0 : (chain.size() - 1 - i) * kBlock;
    if (shared >= least && shared > 0) found = Found{value.manifest, value.tokens, shared, {commands[i][1]}};
  }
  return found;
}

std::optional<SharedEntries::Manifest> SharedEntries::manifest(const Found& found) {
  const RedisReply reply = run({{"GET", key('m', found.manifest)}}).front();
  ManifestHead head{};
  const std::size_t parts = (reply.text.size() - std::min(reply.text.size(), sizeof head)) / sizeof(Name);
  if (reply.text.size() == sizeof head + parts * sizeof(Name) && parts <= kMostParts &&
      hash_name(reply.text) == found.manifest) {
    std::memcpy(&head, reply.text.data(), sizeof head);
    Manifest result{head.bytes, head.head_bytes, std::vector<Name>(parts)};
    std::memcpy(result.parts.data(), reply.text.data() + sizeof head, parts * sizeof(Name));
    if (head.head_bytes > 0 && head.head_bytes <= std::min(head.bytes, kMostHead) && head.bytes <= parts * kKvPartBytes)
      return result;
  }
  forget(found);
  return {};
}

std::vector<std::string> SharedEntries::read(const Manifest& manifest, std::size_t first, std::size_t count) {
  std::vector<RedisCommand> commands;
  count = std::min({count, kTogether, manifest.parts.size() - first});
  for (std::size_t i = first; i < first + count; ++i) commands.push_back({"GET", key('p', manifest.parts[i])});
  std::vector<RedisReply> replies = run(commands);
  std::vector<std::string> result;
  for (std::size_t i = 0; i < count; ++i) {
    if (hash_name(replies[i].text) != manifest.parts[first + i] || replies[i].text.size() > kKvPartBytes) {
      const bool gone = replies[i].kind == RedisReply::Kind::nil;
      // Who writes it anew takes what is there for good.
      if (!gone) remove(manifest.parts);
      fail<FormatError>("a part of it is {}", gone ? "gone" : "damaged");
    }
    result.push_back(std::move(replies[i].text));
  }
  return result;
}

void SharedEntries::remove(std::span<const Name> parts) {
  std::vector<RedisCommand> commands;
  for (const Name& part : parts) commands.push_back({"UNLINK", key('p', part)});
  run_many(std::move(commands));
}

void SharedEntries::forget(const Found& found) {
  RedisCommand command{"UNLINK", key('m', found.manifest)};
  command.insert(command.end(), found.index.begin(), found.index.end());
  run({command});
}

bool SharedEntries::refresh(const Found& found, const Manifest& manifest) {
  std::vector<RedisCommand> commands{{"EXPIRE", key('m', found.manifest), ttl_}, used(std::span(&found.manifest, 1))};
  for (const std::string& index : found.index) commands.push_back({"EXPIRE", index, ttl_});
  run_many(std::move(commands));
  const std::vector<bool> gone = missing(manifest.parts);
  return std::find(gone.begin(), gone.end(), true) == gone.end();
}

SharedEntries::Name SharedEntries::name_of(const KvImage::Part& part) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(state.get());
  for (const auto& piece : part) XXH3_128bits_update(state.get(), piece.data(), piece.size());
  return canonical(XXH3_128bits_digest(state.get()));
}

std::vector<bool> SharedEntries::missing(std::span<const Name> parts) {
  std::vector<RedisCommand> commands;
  for (const Name& part : parts) commands.push_back({"EXPIRE", key('p', part), ttl_});
  const std::vector<RedisReply> replies = run_many(std::move(commands));
  std::vector<bool> result;
  std::vector<Name> there;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    result.push_back(replies[i].integer != 1);
    if (!result.back()) there.push_back(parts[i]);
  }
  for (std::size_t at = 0; at < there.size(); at += kMostMembers)
    run({used(std::span(there).subspan(at, std::min(kMostMembers, there.size() - at)))});
  return result;
}

bool SharedEntries::make_room(std::size_t values) {
  const std::string set = base_ + "used";
  const auto most = static_cast<std::int64_t>(limits_.most / kKvPartBytes), wanted = static_cast<std::int64_t>(values);
  if (wanted > most) return false;
  // What has expired takes no room.
  const auto replies =
      run({{"ZREMRANGEBYSCORE", set, "-inf", fmt::format("({}", now_text(limits_.ttl))}, {"ZCARD", set}});
  for (std::int64_t excess = replies.at(1).integer + wanted - most; excess > 0;) {
    const RedisReply oldest = run({{"ZPOPMIN", set, std::to_string(std::min<std::int64_t>(excess, 256))}}).front();
    RedisCommand remove{"UNLINK"};
    for (std::size_t i = 0; i + 1 < oldest.list.size(); i += 2)
      for (const char kind : {'p', 'm'}) remove.push_back(key(kind, std::as_bytes(std::span(oldest.list[i].text))));
    if (remove.size() == 1) return true;
    run({remove});
    excess -= static_cast<std::int64_t>(remove.size() / 2);
  }
  return true;
}

void SharedEntries::write(std::span<const Name> names, const std::vector<std::string>& parts) {
  std::vector<RedisCommand> commands;
  for (std::size_t i = 0; i < parts.size(); ++i) commands.push_back({"SET", key('p', names[i]), parts[i], "EX", ttl_});
  commands.push_back(used(names));
  run(commands);
}

void SharedEntries::publish(const Manifest& manifest, std::span<const TokenId> tokens, bool exact) {
  const std::string bytes = bytes_of(manifest);
  const Name name = hash_name(bytes);
  const std::vector<std::uint64_t> chain = chain_of(identity_, tokens);
  const IndexValue value{name, tokens.size(), whole_hash(chain, tokens, tokens.size()), exact ? 1u : 0u};
  std::vector<RedisCommand> commands{{"SET", key('m', name), bytes, "EX", ttl_}, used(std::span(&name, 1))};
  // An entry that is shorter does as well where both begin alike, and is brought sooner.
  for (std::size_t block = exact ? chain.size() - 1 : 1; block < chain.size(); ++block) {
    RedisCommand command{"SET", key('i', std::as_bytes(std::span(&chain[block], 1))), bytes_of(value), "EX", ttl_};
    if (!exact) command.emplace_back("NX");
    commands.push_back(std::move(command));
  }
  commands.push_back({"EXPIRE", base_ + "used", std::to_string(2 * limits_.ttl.count())});
  run_many(std::move(commands));
}

}  // namespace snug
