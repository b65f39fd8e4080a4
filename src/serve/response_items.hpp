#pragma once
/// Items of a response's input as the messages that templates know.

#include "serve/api.hpp"

namespace snug {

/// `input`: a text, or items: messages, function calls and what came of them; items of other kinds are left out. Adds
/// to `messages`. Throws ApiError.
void add_input(const Json& input, Json& messages);

}  // namespace snug
