#pragma once
/// The page, and what it shows: where memory goes, who is at work, what gave way.

#include "serve/api.hpp"

namespace snug {

void page_status(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
void page_memory(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
/// "/", "/app.js" and "/app.css", which are part of the binary.
void page_file(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
