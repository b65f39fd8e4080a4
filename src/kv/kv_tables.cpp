#include "kv/kv_tables.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/error.hpp"
#include "format/hash.hpp"

namespace snug {

namespace {

constexpr char kMagic[8] = {'S', 'N', 'U', 'G', 'K', 'V', 'T', 0};
constexpr std::uint32_t kVersion = 1, kMaxArrays = 1 << 20;

struct Header {
  char magic[8];
  std::uint32_t version, arrays;
  std::uint64_t fingerprint, size;  ///< of the whole file
  std::uint64_t checksum;
  std::uint64_t reserved[3];
};
static_assert(sizeof(Header) == 64);

struct TableRow {
  char name[40];  ///< ends with 0
  std::uint32_t layer, unused;
  std::uint64_t offset, count;  ///< bytes from the file's beginning, values
};
static_assert(sizeof(TableRow) == 64);

}  // namespace

void KvTables::add(std::size_t layer, std::string name, std::vector<float> values) {
  assert(name.size() < sizeof(TableRow::name));
  arrays_.emplace(std::pair(layer, std::move(name)), std::move(values));
}

std::span<const float> KvTables::find(std::size_t layer, std::string_view name) const {
  const auto found = arrays_.find(std::pair(layer, std::string(name)));
  return found == arrays_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

std::span<const float> KvTables::get(std::size_t layer, std::string_view name, std::size_t count) const {
  const std::span<const float> values = find(layer, name);
  if (values.size() != count)
    fail<FormatError>("{}: {} of layer {} has {} values where {} are expected; make it again with snug calibrate",
                      path_, name, layer, values.size(), count);
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
    fail<FormatError>("{}: {} of layer {} has values that are not numbers", path_, name, layer);
  return values;
}

Bytes KvTables::bytes() const {
  Bytes total = 0;
  for (const auto& [key, values] : arrays_) total += values.size() * sizeof(float);
  return total;
}

void KvTables::write(const std::string& path, std::uint64_t fingerprint) const {
  std::vector<TableRow> table;
  Bytes at = sizeof(Header) + arrays_.size() * sizeof(TableRow);
  for (const auto& [key, values] : arrays_) {
    TableRow row{};
    std::memcpy(row.name, key.second.c_str(), key.second.size());
    row.layer = static_cast<std::uint32_t>(key.first);
    row.offset = at;
    row.count = values.size();
    at += values.size() * sizeof(float);
    table.push_back(row);
  }
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version = kVersion;
  h.arrays = static_cast<std::uint32_t>(table.size());
  h.fingerprint = fingerprint;
  h.size = at;
  Hash hash;
  hash.add_value(h);
  hash.add(std::as_bytes(std::span(table)));
  for (const auto& [key, values] : arrays_) hash.add(std::as_bytes(std::span(values)));
  h.checksum = hash.value();
  remove_abandoned(path);
  write_atomically(path, [&](const auto& append) {
    append(std::as_bytes(std::span(&h, 1)));
    append(std::as_bytes(std::span(table)));
    for (const auto& [key, values] : arrays_) append(std::as_bytes(std::span(values)));
  });
}

KvTables KvTables::parse(const RandomAccessFile& file, std::uint64_t fingerprint) {
  KvTables result;
  result.path_ = file.path();
  const std::string& path = file.path();
  Header h{};
  if (file.size() < sizeof h) fail<FormatError>("{}: too short for tables of a KV codec", path);
  file.read(0, std::as_writable_bytes(std::span(&h, 1)));
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) fail<FormatError>("{}: not tables of a KV codec", path);
  if (h.version != kVersion)
    fail<FormatError>("{}: version {} where {} is known; make it again with snug calibrate", path, h.version, kVersion);
  if (h.size != file.size())
    fail<FormatError>("{}: {} bytes where {} are expected: cut short?", path, file.size(), h.size);
  if (h.arrays > kMaxArrays || file.size() < sizeof h + h.arrays * sizeof(TableRow))
    fail<FormatError>("{}: the header is damaged", path);
  std::vector<TableRow> table(h.arrays);
  file.read(sizeof h, std::as_writable_bytes(std::span(table)));
  const std::uint64_t checksum = std::exchange(h.checksum, 0);
  Hash hash;
  hash.add_value(h);
  hash.add(std::as_bytes(std::span(table)));
  Bytes at = sizeof h + table.size() * sizeof(TableRow);
  for (const TableRow& row : table) {
    if (row.name[sizeof row.name - 1] != 0 || row.offset != at || row.count > (h.size - at) / sizeof(float))
      fail<FormatError>("{}: the table is damaged", path);
    std::vector<float> values(row.count);
    file.read(at, std::as_writable_bytes(std::span(values)));
    hash.add(std::as_bytes(std::span(values)));
    at += values.size() * sizeof(float);
    result.add(row.layer, row.name, std::move(values));
  }
  if (at != h.size || hash.value() != checksum)
    fail<FormatError>("{}: damaged; make it again with snug calibrate", path);
  if (h.fingerprint != fingerprint)
    fail<FormatError>("{}: made for another model; make it again with snug calibrate", path);
  return result;
}

std::string kv_tables_path(const KvModel& model, std::string_view codec) {
  return fmt::format("{}.kv-{}", model.path, codec);
}

KvTables read_kv_tables(const KvModel& model, std::string_view codec) {
  const std::string path = kv_tables_path(model, codec);
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    fail("{} is missing: snug calibrate MODEL --text FILE --kv {} makes it", path, codec);
  return KvTables::parse(*open_file(path), model.fingerprint);
}

}  // namespace snug
