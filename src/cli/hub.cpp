#include "cli/hub.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "cli/fetch.hpp"
#include "cli/model_store.hpp"

namespace snug {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kDefaultQuant = "Q4_K_M";

std::string environment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

bool safe(const std::string& text) {
  return !text.empty() && text.find("..") == std::string::npos && text.front() != '/' &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) || std::string_view("-_./").find(static_cast<char>(c)) != std::string_view::npos;
         });
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

/// All files below a folder, relative to it.
std::vector<std::string> files_below(const fs::path& root) {
  std::vector<std::string> files;
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(root, ignored), end; it != end; it.increment(ignored))
    if (it->is_regular_file(ignored)) files.push_back(it->path().lexically_relative(root).string());
  std::sort(files.begin(), files.end());
  return files;
}

fs::path folder_of(const HubReference& reference) {
  return fs::path(model_folder()) / "hf" / reference.repo;
}

}  // namespace

HubReference parse_hub_reference(const std::string& text) {
  std::string rest = text.starts_with("hf:") ? text.substr(3) : text;
  HubReference reference;
  if (const auto colon = rest.find(':'); colon != std::string::npos) {
    reference.quant = rest.substr(colon + 1);
    rest.resize(colon);
  }
  const auto owner = rest.find('/');
  const auto file = owner == std::string::npos ? owner : rest.find('/', owner + 1);
  reference.repo = rest.substr(0, file);
  if (file != std::string::npos) reference.file = rest.substr(file + 1);
  const bool both = !reference.file.empty() && !reference.quant.empty();
  if (owner == std::string::npos || both || !safe(reference.repo) ||
      (file != std::string::npos && !safe(reference.file)))
    fail<UsageError>("'{}' is not of the form hf:owner/repo[:QUANT] or hf:owner/repo/file.gguf", text);
  return reference;
}

std::vector<std::string> choose_files(const std::vector<std::string>& files, const HubReference& reference) {
  if (!reference.file.empty()) return {reference.file};
  const std::string quant = upper(reference.quant.empty() ? std::string(kDefaultQuant) : reference.quant);
  std::vector<std::string> models, chosen;
  for (const std::string& file : files)
    if (file.ends_with(".gguf") && upper(file).find("MMPROJ") == std::string::npos) models.push_back(file);
  for (const std::string& file : models) {
    // The quantisation stands between separators: Q4_K must not find Q4_K_M.
    const std::string name = upper(file);
    for (std::size_t at = name.find(quant); at != std::string::npos; at = name.find(quant, at + 1)) {
      const char before = at ? name[at - 1] : '-', after = name[at + quant.size()];
      if (std::string_view("-._/").find(before) != std::string_view::npos &&
          std::string_view("-./").find(after) != std::string_view::npos) {
        chosen.push_back(file);
        break;
      }
    }
  }
  std::sort(chosen.begin(), chosen.end());
  const bool split = chosen.size() > 1 && chosen.front().find("-00001-of-") != std::string::npos;
  if (chosen.size() > 1 && !split) chosen.resize(1);
  if (chosen.empty()) {
    std::string list;
    for (const std::string& file : models) list += " " + file;
    fail("{} has no model file with quantisation {}; it has:{}", reference.repo, quant, list.empty() ? " none" : list);
  }
  return chosen;
}

std::string find_hub_model(const HubReference& reference) {
  std::vector<fs::path> folders{folder_of(reference)};
  std::string cached = reference.repo;
  cached.replace(cached.find('/'), 1, "--");
  const std::string home = environment("HF_HOME", environment("HOME", "") + "/.cache/huggingface");
  std::error_code ignored;
  for (fs::directory_iterator it(fs::path(home) / "hub" / ("models--" + cached) / "snapshots", ignored), end; it != end;
       it.increment(ignored))
    folders.push_back(it->path());
  for (const fs::path& folder : folders) {
    const std::vector<std::string> files = files_below(folder);
    try {
      const std::string path = (folder / choose_files(files, reference).front()).string();
      if (fs::is_regular_file(path, ignored)) return path;
    } catch (const Error&) {  // not in this folder
    }
  }
  return "";
}

std::string fetch_hub_model(const HubReference& reference) {
  if (const std::string offline = environment("HF_HUB_OFFLINE", "0"); offline != "0")
    fail<IoError>("hf:{} is not here and HF_HUB_OFFLINE is set", reference.repo);
  const std::string endpoint = environment("HF_ENDPOINT", "https://huggingface.co"),
                    token = environment("HF_TOKEN", "");
  std::vector<std::string> files;
  if (reference.file.empty()) {
    const std::string listing = download_text(endpoint + "/api/models/" + reference.repo, token);
    const auto json = nlohmann::json::parse(listing, nullptr, false);
    if (!json.is_object() || !json.contains("siblings") || !json["siblings"].is_array())
      fail<IoError>("{}: the hub's answer about {} is not understood", endpoint, reference.repo);
    for (const auto& sibling : json["siblings"])
      if (sibling.is_object() && sibling.contains("rfilename") && sibling["rfilename"].is_string()) {
        const auto name = sibling["rfilename"].get<std::string>();
        if (safe(name)) files.push_back(name);
      }
  }
  files = choose_files(files, reference);
  const fs::path folder = folder_of(reference);
  for (const std::string& file : files) {
    const fs::path path = folder / file;
    fs::create_directories(path.parent_path());
    download_file({endpoint + "/" + reference.repo + "/resolve/main/" + file, path.string(), token, "", file});
  }
  return (folder / files.front()).string();
}

}  // namespace snug
