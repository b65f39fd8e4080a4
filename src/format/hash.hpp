#pragma once
/// XXH3-64 (https://xxhash.com) of what is added piece by piece: checksums and fingerprints of our own files.

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <span>

namespace snug {

class Hash {
public:
  Hash() : state_(XXH3_createState(), &XXH3_freeState) { XXH3_64bits_reset(state_.get()); }
  void add(std::span<const std::byte> bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }
  /// The bytes of a plain value or struct without padding.
  template <class T>
  void add_value(const T& value) {
    add(std::as_bytes(std::span(&value, 1)));
  }
  std::uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

inline std::uint64_t hash_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace snug
