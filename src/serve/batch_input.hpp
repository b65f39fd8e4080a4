#pragma once
/// The requests of a batch: OpenAI's batch format, one JSON object a line with custom_id, method, url and body.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "serve/http.hpp"

namespace snug {

/// A line that is no request; what() says why.
class BatchLineError : public Error {
public:
  BatchLineError(std::string error_code, const std::string& message) : Error(message), code(std::move(error_code)) {}
  std::string code;
  std::optional<std::string> custom_id;  ///< when it has one
};

struct BatchRequest {
  std::string custom_id;
  HttpRequest http;
};

/// Only where lines begin is kept in memory: they are read again when their turn comes.
class BatchInput {
public:
  /// Throws IoError.
  explicit BatchInput(const std::string& path);

  /// Lines that are not blank.
  std::size_t size() const { return lines_.size(); }
  /// Of all its lines.
  std::uint64_t fingerprint() const { return fingerprint_; }
  /// Throws BatchLineError, and IoError when the file is another one than it was.
  BatchRequest read(std::size_t index) const;

private:
  struct Entry {
    Bytes offset, size;
    std::uint64_t hash;
    std::size_t number;    ///< of the line, from 1
    std::size_t like = 0;  ///< the number of an earlier line with the same custom_id; 0: none
  };
  std::unique_ptr<RandomAccessFile> file_;
  std::vector<Entry> lines_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace snug
