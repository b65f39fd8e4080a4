#include "generate/kv_folder.hpp"

#include <algorithm>
#include <filesystem>

#include "base/error.hpp"
#include "format/fingerprint.hpp"
#include "format/hash.hpp"
#include "generate/common_prefix.hpp"

namespace snug {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLeastTokens = 16;  // fewer are prefilled as quickly
constexpr std::string_view kSuffix = ".kv";

void note(const Error& error) {
  fmt::print(stderr, "note: {}; it is not used\n", error.what());
}

/// Where such tokens lie; "": they are there already.
std::string place_for(const std::string& folder, const Model& model, std::span<const TokenId> tokens) {
  Hash hash;
  hash.add_value(model_fingerprint(model.file()));
  hash.add(std::as_bytes(std::span(model.kv_name())));
  hash.add(std::as_bytes(tokens));
  std::error_code error;
  fs::create_directories(folder, error);
  const fs::path path = fs::path(folder) / fmt::format("{:016x}{}", hash.value(), kSuffix);
  return fs::exists(path, error) ? std::string() : path.string();
}

}  // namespace

void load_from_folder(const std::string& folder, const Model& model, const std::vector<TokenId>& prompt,
                      Session& session) {
  std::string best;
  std::size_t most = kLeastTokens - 1;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != kSuffix) continue;
    try {
      const KvFile file = KvFile::open(entry.path().string());
      if (!model.saved_here(file)) continue;
      const std::size_t shared = common_prefix(prompt, file.tokens());
      if (shared > most) most = shared, best = entry.path().string();
    } catch (const Error& e) {
      note(e);
    }
  }
  try {
    if (!best.empty()) session.load(best);
  } catch (const OutOfBudget&) {
    throw;
  } catch (const Error& e) {
    note(e);
  }
}

void save_to_folder(const std::string& folder, const Model& model, const Session& session) {
  if (const std::string path = place_for(folder, model, session.history()); !path.empty()) session.save(path);
}

void save_to_folder(const std::string& folder, const Model& model, const Sequence& sequence,
                    std::span<const TokenId> tokens) {
  if (const std::string path = place_for(folder, model, tokens); !path.empty()) model.save(sequence, tokens, path);
}

std::vector<std::string> saved_in_folder(const std::string& folder, const Model& model) {
  std::vector<std::pair<fs::file_time_type, std::string>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != kSuffix) continue;
    try {
      if (model.saved_here(KvFile::open(entry.path().string())))
        found.emplace_back(entry.last_write_time(error), entry.path().string());
    } catch (const Error& e) {
      note(e);
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> paths;
  for (auto& [time, path] : found) paths.push_back(std::move(path));
  return paths;
}

}  // namespace snug
