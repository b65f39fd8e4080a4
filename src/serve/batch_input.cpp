#include "serve/batch_input.hpp"

#include <unordered_map>

#include "format/hash.hpp"
#include "serve/lines.hpp"
#include "serve/request_fields.hpp"

namespace snug {

namespace {

constexpr std::size_t kMostLine = 32u << 20;  // as much as `snug serve` takes for a body
constexpr int kMostDepth = 256;               // of nested values

std::uint64_t hash_of_text(std::string_view text) {
  return hash_of(std::as_bytes(std::span(text)));
}

Json parse_line(std::string_view text) {
  bool deep = false;
  const auto keep = [&deep](int depth, Json::parse_event_t, Json&) {
    deep |= depth > kMostDepth;
    return depth <= kMostDepth;
  };
  Json json;
  try {
    json = Json::parse(text, keep);
  } catch (const nlohmann::json::exception& e) {
    throw BatchLineError("invalid_json_line", fmt::format("the line is not JSON: {}", e.what()));
  }
  if (deep) throw BatchLineError("invalid_json_line", fmt::format("the line nests more than {} deep", kMostDepth));
  if (!json.is_object()) throw BatchLineError("invalid_json_line", "the line must be a JSON object");
  return json;
}

std::string custom_id_of(const Json& line) {
  const Json& id = field_of(line, "custom_id");
  if (!id.is_string()) throw BatchLineError("missing_required_parameter", "'custom_id' must be a string");
  return id.get<std::string>();
}

HttpRequest request_of(const Json& line) {
  const Json &method = field_of(line, "method"), &url = field_of(line, "url"), &given = field_of(line, "body");
  if (method != "POST") throw BatchLineError("invalid_method", "'method' must be \"POST\"");
  if (!url.is_string()) throw BatchLineError("invalid_url", "'url' must be a string such as /v1/chat/completions");
  std::string path = url.get<std::string>();
  if (!path.starts_with("/v1/") && !path.starts_with("/api/"))
    throw BatchLineError("invalid_url", fmt::format("'{}' is nothing that a batch can ask for", path));
  if (!given.is_object()) throw BatchLineError("missing_required_parameter", "'body' must be an object");
  Json body = given;
  body["stream"] = false;  // answers are written whole
  return {.method = "POST", .path = std::move(path), .query = {}, .body = dump(body), .headers = {}};
}

}  // namespace

BatchInput::BatchInput(const std::string& path) : file_(open_file(path)) {
  std::unordered_map<std::uint64_t, std::size_t> ids;  // hashes of custom_ids, and their lines
  Hash all;
  std::size_t number = 0;
  for_each_line(*file_, kMostLine, [&](const Line& line) {
    ++number;
    if (line.text.find_first_not_of(" \t\r") == line.text.npos) return true;
    Entry entry{line.offset, line.size, hash_of_text(line.text), number};
    try {
      if (line.size > kMostLine) throw BatchLineError("invalid_json_line", "too long");
      const auto [first, added] = ids.try_emplace(hash_of_text(custom_id_of(parse_line(line.text))), number);
      if (!added) entry.like = first->second;
    } catch (const BatchLineError&) {
      // read() says it again.
    }
    all.add_value(entry.hash), all.add_value(entry.size);
    lines_.push_back(entry);
    return true;
  });
  fingerprint_ = all.value();
}

BatchRequest BatchInput::read(std::size_t index) const {
  const Entry& entry = lines_.at(index);
  std::string text(static_cast<std::size_t>(std::min<Bytes>(entry.size, kMostLine)), '\0');
  file_->read(entry.offset, std::as_writable_bytes(std::span(text)));
  if (hash_of_text(text) != entry.hash)
    fail<IoError>("{} has changed since it was read first (line {})", file_->path(), entry.number);
  if (entry.size > kMostLine)
    throw BatchLineError("invalid_json_line", fmt::format("the line has {}; {} are allowed", format_bytes(entry.size),
                                                          format_bytes(kMostLine)));
  const Json line = parse_line(text);
  std::string id = custom_id_of(line);
  try {
    if (entry.like > 0)
      throw BatchLineError("duplicate_custom_id",
                           fmt::format("line {} has the same custom_id; only the first one is answered", entry.like));
    return {id, request_of(line)};
  } catch (BatchLineError& e) {
    e.custom_id = std::move(id);
    throw;
  }
}

}  // namespace snug
