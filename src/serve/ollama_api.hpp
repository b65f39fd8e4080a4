#pragma once
/// What clients of Ollama need of its API.

#include "serve/api.hpp"

namespace snug {

/// {"error": "..."}
HttpResponse ollama_error(const ApiError& error);

void ollama_version(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void ollama_tags(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void ollama_show(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void ollama_chat(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void ollama_generate(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
