#pragma once
/// Text to token ids and back, as the model's file describes it (GGUF `tokenizer.ggml.*`).

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

class GgufFile;
using TokenId = std::int32_t;

struct EncodeOptions {
  bool add_special = true;     ///< BOS / EOS as the model says
  bool parse_special = false;  ///< control tokens written in the text become their ids
};

/// Thread-safe after construction.
class Tokenizer {
public:
  virtual ~Tokenizer() = default;
  /// Throws FormatError on missing or inconsistent metadata or an unknown model or pre-tokenizer (lists the known
  /// ones).
  static std::unique_ptr<Tokenizer> from_gguf(const GgufFile& file);

  virtual std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const = 0;
  /// Bytes of one token as they stand in the text; control tokens give "" unless `special`. "" for ids out of range.
  virtual std::string piece(TokenId id, bool special = false) const = 0;
  /// All pieces joined; invalid UTF-8 comes back byte for byte.
  std::string decode(const std::vector<TokenId>& ids, bool special = false) const;

  virtual std::size_t size() const = 0;
  virtual TokenId bos() const = 0;  ///< -1: none
  virtual TokenId eos() const = 0;
  virtual bool adds_bos() const = 0;
  /// Ends generation: EOS, EOT, end-of-message and the like.
  virtual bool is_end(TokenId id) const = 0;
  virtual bool is_control(TokenId id) const = 0;
  virtual std::size_t memory_bytes() const = 0;
};

/// Turns a stream of pieces into text without ever giving out half a UTF-8 character.
class StreamDecoder {
public:
  /// Appends a piece; returns what is complete. Bytes that can never become a character are passed through.
  std::string push(std::string_view piece);
  /// What is left at the end.
  std::string finish();

private:
  std::string pending_;
};

}  // namespace snug
