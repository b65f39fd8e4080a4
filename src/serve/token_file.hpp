#pragma once
/// Lists of tokens in a file without a name: memory that the kernel may take back.

#include <span>
#include <string>
#include <vector>

#include "base/descriptor.hpp"
#include "base/units.hpp"
#include "text/tokenizer.hpp"

namespace snug {

class TokenFile {
public:
  /// Throws IoError.
  explicit TokenFile(const std::string& folder);
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  /// Throws IoError.
  void add(std::span<const TokenId> tokens);
  /// All lists, in the order in which they were added; add() must not be called afterwards.
  std::vector<std::span<const TokenId>> lists();

private:
  void flush();

  std::string folder_;
  Descriptor fd_;
  std::vector<TokenId> fresh_;
  std::vector<std::size_t> ends_;  ///< of each list, in tokens
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace snug
