#pragma once
/// Models on the Hugging Face hub: hf:owner/repo[:QUANT] and hf:owner/repo/file.gguf. Honours HF_ENDPOINT, HF_TOKEN,
/// HF_HUB_OFFLINE, and files that are in HF_HOME already.

#include <string>
#include <vector>

namespace snug {

struct HubReference {
  std::string repo;   ///< owner/name
  std::string file;   ///< within the repository; "" when `quant` chooses
  std::string quant;  ///< Q4_K_M when not given
};

/// Throws UsageError.
HubReference parse_hub_reference(const std::string& text);

/// A file that is here already, in snug's folder or the hub client's cache; "" when there is none.
std::string find_hub_model(const HubReference& reference);

/// Fetches it (all files of a split model); returns the path of the (first) file. Throws IoError.
std::string fetch_hub_model(const HubReference& reference);

/// Of a repository's files, those of the model with this quantisation: one, or all parts of a split one, in order.
/// Throws Error that lists what there is.
std::vector<std::string> choose_files(const std::vector<std::string>& files, const HubReference& reference);

}  // namespace snug
