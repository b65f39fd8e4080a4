#pragma once
/// What replicas share, as it lies in Redis: sequences of tokens with their KV, found by what a prompt begins with.
///
/// An entry is the bytes of a saved session (kv/kv_file.hpp) in parts of at most 128 KiB. Everything but the index is
/// named by the hash of its bytes (XXH3-128), so that sequences that begin alike have most of their parts in common and
/// damage shows. With {ID} for Model::kv_identity():
///     PREFIX:{ID}:i:HASH   for each multiple of 64 tokens, hashed from the first on: which manifest, and how long it
///     is PREFIX:{ID}:m:HASH   a manifest: sizes, and the names of the parts PREFIX:{ID}:p:HASH   a part
///     PREFIX:{ID}:used     parts and manifests by when they were last used, to remove the oldest when there are too
///     many
/// All of them expire. Redis may lose any of them at any time: an entry that is not whole is a miss.

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "kv/kv_file.hpp"
#include "serve/redis_client.hpp"
#include "text/tokenizer.hpp"

namespace snug {

/// Redis does not answer, or says no.
class RedisError : public Error {
public:
  using Error::Error;
};

struct SharedLimits {
  std::string prefix = "snug";     ///< of all keys
  std::chrono::seconds ttl{3600};  ///< of what nobody uses
  Bytes most = 4 * kGiB;           ///< of all parts, each counted as kKvPartBytes; the index comes to it
};

/// Used by one thread. All throw RedisError.
class SharedEntries {
public:
  SharedEntries(RedisLink& link, SharedLimits limits, std::uint64_t identity);

  /// Whether Redis answers.
  void check();

  using Name = std::array<std::byte, 16>;  ///< hash of a value
  struct Found {
    Name manifest;
    std::size_t tokens = 0;            ///< of the entry
    std::size_t shared = 0;            ///< of them, those that it has in common with what was asked for
    std::vector<std::string> index{};  ///< keys that lead there
  };
  /// What has most in common with the beginning of `tokens`: at least `least`, and no more than `most` tokens by
  /// itself.
  std::optional<Found> find(std::span<const TokenId> tokens, std::size_t least, std::size_t most);

  struct Manifest {
    Bytes bytes = 0, head_bytes = 0;
    std::vector<Name> parts;
  };
  /// None: it is gone, or no manifest; then the index is told.
  std::optional<Manifest> manifest(const Found& found);
  /// Parts that read() and write() take at most at a time.
  static constexpr std::size_t kTogether = 8;
  /// So many parts from `first` on, as far as there are so many, in order. Throws FormatError when one is gone, or
  /// damaged: then all are removed.
  std::vector<std::string> read(const Manifest& manifest, std::size_t first, std::size_t count = kTogether);
  /// The entry is no good: nobody shall find it again.
  void forget(const Found& found);
  /// It was used, and stays. Returns whether it is whole.
  bool refresh(const Found& found, const Manifest& manifest);

  static Name name_of(const KvImage::Part& part);
  /// Those of `parts` that are not there yet; the others stay.
  std::vector<bool> missing(std::span<const Name> parts);
  /// Makes room for so many values. Returns false when there will never be as much.
  bool make_room(std::size_t values);
  void write(std::span<const Name> names, const std::vector<std::string>& parts);
  /// After its parts: now it can be found. `exact`: only by who has all of its tokens, since it cannot go back.
  void publish(const Manifest& manifest, std::span<const TokenId> tokens, bool exact);

private:
  std::vector<RedisReply> run(const std::vector<RedisCommand>& commands);
  /// In several goes, so that none takes Redis long.
  std::vector<RedisReply> run_many(std::vector<RedisCommand> commands);
  void remove(std::span<const Name> parts);
  std::string key(char kind, std::span<const std::byte> name) const;
  RedisCommand used(std::span<const Name> names) const;

  RedisLink& link_;
  SharedLimits limits_;
  std::string base_, ttl_;
  std::uint64_t identity_;
};

}  // namespace snug
