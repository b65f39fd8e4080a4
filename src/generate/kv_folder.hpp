#pragma once
/// --kv-dir: saved sessions in a folder, found by the tokens they begin with.

#include <span>
#include <string>
#include <vector>

#include "generate/session.hpp"

namespace snug {

/// Loads the session that shares most tokens with the beginning of `prompt`, if there is one with more than a few.
/// Files of other models are passed over, damaged ones too, with a note on stderr.
void load_from_folder(const std::string& folder, const Model& model, const std::vector<TokenId>& prompt,
                      Session& session);
/// Saves the session there, named by what it holds. Throws IoError.
void save_to_folder(const std::string& folder, const Model& model, const Session& session);
/// The same of a sequence.
void save_to_folder(const std::string& folder, const Model& model, const Sequence& sequence,
                    std::span<const TokenId> tokens);

/// Files there that were saved by this model in this way, the oldest first.
std::vector<std::string> saved_in_folder(const std::string& folder, const Model& model);

}  // namespace snug
