#include "cli/model_store.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/error.hpp"
#include "cli/fetch.hpp"
#include "cli/hub.hpp"
#include "cli/manifest.hpp"

namespace snug {

namespace fs = std::filesystem;

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool looks_like_path(const std::string& model) {
  return model.find('/') != std::string::npos || model.ends_with(".gguf");
}

}  // namespace

std::string model_folder() {
  if (const std::string own = environment("SNUG_MODELS"); !own.empty()) return own;
  if (const std::string data = environment("XDG_DATA_HOME"); !data.empty()) return data + "/snug/models";
  if (const std::string home = environment("HOME"); !home.empty()) return home + "/.local/share/snug/models";
  fail("neither SNUG_MODELS nor HOME is set: no folder for models");
}

std::vector<StoredModel> stored_models() {
  std::vector<StoredModel> models;
  std::error_code ignored;
  const fs::path root = model_folder();
  for (fs::recursive_directory_iterator it(root, ignored), end; it != end; it.increment(ignored)) {
    if (!it->is_regular_file(ignored) || it->path().extension() != ".gguf") continue;
    const std::string relative = it->path().lexically_relative(root).string();
    const std::string name =
        relative.starts_with("hf/") ? "hf:" + relative.substr(3) : relative.substr(0, relative.size() - 5);
    models.push_back({name, it->path().string(), it->file_size(ignored)});
  }
  std::sort(models.begin(), models.end(), [](const StoredModel& a, const StoredModel& b) { return a.name < b.name; });
  return models;
}

std::string find_model(const std::string& model) {
  std::error_code ignored;
  if (model.starts_with("hf:")) return find_hub_model(parse_hub_reference(model));
  if (looks_like_path(model)) return fs::is_regular_file(model, ignored) ? model : "";
  const std::string stored = model_folder() + "/" + model + ".gguf";
  if (fs::is_regular_file(stored, ignored)) return stored;
  return fs::is_regular_file(model, ignored) ? model : "";
}

std::string find_or_fetch_model(const std::string& model) {
  if (const std::string path = find_model(model); !path.empty()) return path;
  if (!model.starts_with("hf:") && !find_known_model(model)) {
    if (looks_like_path(model)) fail<IoError>("cannot open {}: no such file", model);
    std::string known;
    for (const KnownModel& m : known_models()) known += fmt::format("{}{}", known.empty() ? "" : ", ", m.name);
    fail("model '{}' is not here: give a path, hf:owner/repo, or one of {}", model, known);
  }
  return fetch_model(model);
}

}  // namespace snug
