#pragma once
/// Embeddings: OpenAI's /v1/embeddings, Ollama's /api/embed and the older /api/embeddings.

#include "serve/api.hpp"

namespace snug {

void openai_embeddings(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void ollama_embed(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void ollama_embeddings(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
