#pragma once
/// The folder where fetched models live, and how a MODEL argument is found in it.

#include <string>
#include <vector>

#include "base/units.hpp"

namespace snug {

/// SNUG_MODELS, else XDG_DATA_HOME/snug/models, else ~/.local/share/snug/models.
std::string model_folder();

struct StoredModel {
  std::string name, path;
  Bytes bytes = 0;
};
/// What is in the folder, by name.
std::vector<StoredModel> stored_models();

/// Path of MODEL: a file, a stored model, a file of the Hugging Face cache; a known name or hf: reference that is not
/// here yet is fetched. Throws UsageError for what is neither, IoError when fetching fails.
std::string find_or_fetch_model(const std::string& model);

/// The same without fetching: "" when it is not here.
std::string find_model(const std::string& model);

}  // namespace snug
