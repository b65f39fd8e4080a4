#pragma once
/// OpenAI's responses: items in, items out, with function tools; conversations may be kept here (ResponseStore).

#include "serve/api.hpp"

namespace snug {

void openai_responses(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
