#pragma once
/// Splits text into the pieces within which byte-level BPE merges (`tokenizer.ggml.pre`).

#include <memory>
#include <string_view>
#include <vector>

namespace snug {

class Pretokenizer {
public:
  /// Throws FormatError for an unknown name and lists the known ones.
  explicit Pretokenizer(std::string_view name);
  ~Pretokenizer();
  Pretokenizer(const Pretokenizer&) = delete;
  Pretokenizer& operator=(const Pretokenizer&) = delete;

  /// Pieces of `text` in order, without gaps. Bytes that are not UTF-8 become pieces of their own.
  std::vector<std::string_view> split(std::string_view text) const;
  /// A piece that is a token is taken whole, whatever the merges say.
  bool ignores_merges() const;

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace snug
