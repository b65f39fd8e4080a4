#pragma once
/// Which codecs keep which pages, as the user wrote it:
///
///     CODEC or KEYS/VALUES          everything ("kivi-2", "q8/kivi-2")
///     ,CODEC:FIRST-LAST             but these layers, or one (":7"); may stand several times
///     ,CODEC@TOKENS                 and what is older than so many tokens

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

/// Names of methods for either side.
struct KvPair {
  std::string keys, values;

  std::string name() const { return keys == values ? keys : keys + "/" + values; }
  bool operator==(const KvPair&) const = default;
};

struct KvChoice {
  struct Layers {
    std::size_t first, last;
    KvPair codecs;
  };
  struct Cold {
    std::size_t age;
    KvPair codecs;
  };
  KvPair codecs;  ///< empty: bf16, and nothing else is said
  std::vector<Layers> layers;
  std::optional<Cold> cold;

  bool coded() const { return !codecs.keys.empty(); }
  std::string name() const;
  /// Names of all methods in it, each once.
  std::vector<std::string> methods() const;
};

/// "bf16" alone (or nothing): nothing is coded. Throws UsageError listing the known names, or saying what it expects.
KvChoice parse_kv_choice(std::string_view text);

}  // namespace snug
