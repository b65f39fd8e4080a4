#pragma once
/// OpenAI's API: chat completions, completions, models.

#include "serve/api.hpp"

namespace snug {

/// {"error": {...}}
HttpResponse openai_error(const ApiError& error);

void openai_models(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void openai_chat(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void openai_completions(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
