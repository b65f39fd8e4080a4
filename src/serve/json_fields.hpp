#pragma once
/// Fields of a request's JSON, with errors that name them. Absent and null are the same.

#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "serve/api.hpp"

namespace snug {

/// Null when it is not there.
inline const Json& field_of(const Json& body, const char* name) {
  static const Json kNull;
  const auto it = body.find(name);
  return it == body.end() ? kNull : *it;
}

inline std::optional<double> number_field(const Json& body, const char* name, double least, double most) {
  const Json& value = field_of(body, name);
  if (value.is_null()) return {};
  if (!value.is_number()) bad_field(name, fmt::format("'{}' must be a number", name));
  const double number = value.get<double>();
  if (!(number >= least && number <= most))
    bad_field(name, fmt::format("'{}' must be between {} and {}, not {}", name, least, most, number));
  return number;
}

inline std::optional<std::size_t> count_field(const Json& body, const char* name, std::size_t least, std::size_t most) {
  const Json& value = field_of(body, name);
  if (value.is_null()) return {};
  if (!value.is_number_integer() || value < least || value > most)
    bad_field(name, fmt::format("'{}' must be a whole number between {} and {}", name, least, most));
  return value.get<std::size_t>();
}

inline bool flag_field(const Json& body, const char* name, bool otherwise = false) {
  const Json& value = field_of(body, name);
  if (value.is_null()) return otherwise;
  if (!value.is_boolean()) bad_field(name, fmt::format("'{}' must be true or false", name));
  return value.get<bool>();
}

inline std::string text_field(const Json& body, const char* name, std::string otherwise = {}) {
  const Json& value = field_of(body, name);
  if (value.is_null()) return otherwise;
  if (!value.is_string()) bad_field(name, fmt::format("'{}' must be a string", name));
  return value.get<std::string>();
}

/// A string or a list of strings.
inline std::vector<std::string> texts_field(const Json& body, const char* name, std::size_t most) {
  const Json& value = field_of(body, name);
  if (value.is_null()) return {};
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array() || value.size() > most)
    bad_field(name, fmt::format("'{}' must be a string or at most {} strings", name, most));
  std::vector<std::string> texts;
  for (const Json& text : value) {
    if (!text.is_string()) bad_field(name, fmt::format("'{}' must have strings only", name));
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

}  // namespace snug
