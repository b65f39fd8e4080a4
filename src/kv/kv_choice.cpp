#include "kv/kv_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.hpp"
#include "kv/kv_codec.hpp"

namespace snug {

namespace {

KvPair parse_pair(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string_view keys = text.substr(0, slash), values = slash == text.npos ? keys : text.substr(slash + 1);
  return {std::string(find_kv_method(keys).name), std::string(find_kv_method(values).name)};
}

std::size_t parse_number(std::string_view text, std::string_view of) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size())
    fail<UsageError>("\"{}\" in --kv: expected a number (CODEC:FIRST-LAST for layers, CODEC@TOKENS for an age)", of);
  return number;
}

void parse_exception(std::string_view text, KvChoice& choice) {
  if (const std::size_t at = text.find('@'); at != text.npos) {
    if (choice.cold) fail<UsageError>("--kv: only one CODEC@TOKENS is possible, \"{}\" is another", text);
    const std::size_t age = parse_number(text.substr(at + 1), text);
    if (age < kLeastColdAge)
      fail<UsageError>("\"{}\" in --kv: pages are at least {} tokens old before they are coded again", text,
                       kLeastColdAge);
    choice.cold = KvChoice::Cold{age, parse_pair(text.substr(0, at))};
    return;
  }
  const std::size_t colon = text.find(':');
  if (colon == text.npos)
    fail<UsageError>("\"{}\" in --kv: what follows the first codec is CODEC:FIRST-LAST or CODEC@TOKENS", text);
  const std::string_view range = text.substr(colon + 1);
  const std::size_t dash = range.find('-');
  const std::size_t first = parse_number(range.substr(0, dash), text),
                    last = dash == range.npos ? first : parse_number(range.substr(dash + 1), text);
  if (last < first) fail<UsageError>("\"{}\" in --kv: the last layer comes before the first", text);
  choice.layers.push_back({first, last, parse_pair(text.substr(0, colon))});
}

}  // namespace

std::string KvChoice::name() const {
  if (!coded()) return "bf16";
  std::string name = codecs.name();
  for (const Layers& l : layers)
    name += fmt::format(",{}:{}", l.codecs.name(),
                        l.first == l.last ? fmt::format("{}", l.first) : fmt::format("{}-{}", l.first, l.last));
  if (cold) name += fmt::format(",{}@{}", cold->codecs.name(), cold->age);
  return name;
}

std::vector<std::string> KvChoice::methods() const {
  std::vector<std::string> all;
  const auto add = [&all](const KvPair& pair) {
    for (const std::string& name : {pair.keys, pair.values})
      if (!name.empty() && std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  };
  add(codecs);
  for (const Layers& l : layers) add(l.codecs);
  if (cold) add(cold->codecs);
  return all;
}

KvChoice parse_kv_choice(std::string_view text) {
  KvChoice choice;
  if (text.empty()) return choice;
  std::size_t comma = text.find(',');
  choice.codecs = parse_pair(text.substr(0, comma));
  while (comma != text.npos) {
    const std::size_t next = text.find(',', comma + 1);
    parse_exception(text.substr(comma + 1, next == text.npos ? next : next - comma - 1), choice);
    comma = next;
  }
  if (choice.name() == "bf16") return {};
  return choice;
}

}  // namespace snug
