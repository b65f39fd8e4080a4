#pragma once
/// Sessions that clients save and go on from later, in a folder of the server's: after llama.cpp's slots, but found by
/// what was said, so nobody has to hold a slot.

#include "serve/api.hpp"

namespace snug {

/// GET: names, tokens and bytes of those that fit this model.
void list_sessions(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);
/// POST {"action": "save", "name": ..., "messages": [...] (and "tools") or "prompt": ...}: what is kept of the
/// beginning of that. {"action": "restore" or "erase", "name": ...}.
void change_session(ServedModel& model, const HttpRequest& request, std::shared_ptr<HttpReply> reply);

}  // namespace snug
