#pragma once
/// Errors that a user, a file or the machine can cause. Our own bugs are assertions instead.

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace snug {

/// Base of all of snug's exceptions; what() is one line that says what to do. The process exits with 1.
class Error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

/// The command line or an option value is wrong. The process exits with 2.
class UsageError : public Error {
public:
  using Error::Error;
};

/// A file's contents are not what its format demands.
class FormatError : public Error {
public:
  using Error::Error;
};

/// The operating system refused to read, write or map.
class IoError : public Error {
public:
  using Error::Error;
};

/// Throws `E` with a formatted one-line message: `fail<FormatError>("{}: truncated at {}", path, offset)`.
template <class E = Error, class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace snug
