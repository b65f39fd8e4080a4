#pragma once
/// Bytes that the Rust crate gives out.

#include <snug_rust.h>

#include <string>

namespace snug {

/// Takes them over as a string.
inline std::string take_text(snug_bytes bytes) {
  std::string text = bytes.data == nullptr ? std::string() : std::string(bytes.data, bytes.size);
  snug_bytes_free(bytes);
  return text;
}

}  // namespace snug
