#pragma once
/// Anthropic's API: messages, and how many tokens they have.

#include "serve/api.hpp"

namespace snug {

/// {"type": "error", "error": {...}}
HttpResponse anthropic_error(const ApiError& error);

void anthropic_messages(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void anthropic_count_tokens(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
