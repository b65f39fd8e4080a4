#include "format/pack.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "format/hash.hpp"
#include "kernels/tile_matrix.hpp"

namespace snug {

namespace {

constexpr std::string_view kMagic = "SNUGPACK";
constexpr unsigned kVersion = 1;
constexpr std::size_t kTrailer = 24;
constexpr Bytes kMostTable = 64 * kMiB;
static_assert(std::endian::native == std::endian::little, "numbers are written as they lie in memory");

nlohmann::ordered_json to_json(const PackedTensor& t) {
  return {{"name", t.name},
          {"type", static_cast<std::uint32_t>(t.type)},
          {"rows", t.rows},
          {"cols", t.cols},
          {"experts", t.experts},
          {"offset", t.offset},
          {"stride", t.expert_stride},
          {"xxh3", t.checksum}};
}

/// `end`: of the tensors. Throws FormatError without the path.
PackedTensor read_tensor(const nlohmann::json& json, Bytes end) {
  PackedTensor t;
  json.at("name").get_to(t.name);
  const auto number = [&json](const char* key, std::uint64_t most) {
    const auto& value = json.at(key);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most) fail<FormatError>("bad number for {}", key);
    return value.get<std::uint64_t>();
  };
  constexpr std::uint64_t k32 = std::numeric_limits<std::uint32_t>::max(), k64 = ~std::uint64_t{0};
  const DTypeInfo* type = find_dtype(static_cast<std::uint32_t>(number("type", k32)));
  if (!type || !type->weight) fail<FormatError>("tensor {} has an unknown type", t.name);
  t.type = type->type;
  t.rows = static_cast<std::uint32_t>(number("rows", k32));
  t.cols = static_cast<std::uint32_t>(number("cols", k32));
  t.experts = static_cast<std::uint32_t>(number("experts", k32));
  t.offset = number("offset", k64);
  t.expert_stride = number("stride", k64);
  t.checksum = number("xxh3", k64);
  if (t.rows == 0 || t.cols == 0 || t.experts == 0) fail<FormatError>("tensor {} is empty", t.name);
  if (t.offset % kDirectBlock != 0 || t.offset < kDirectBlock || t.expert_stride % kDirectBlock != 0)
    fail<FormatError>("tensor {} does not begin at a whole block", t.name);
  const Bytes size = t.expert_bytes();
  if (t.experts > 1 && t.expert_stride < size) fail<FormatError>("the experts of tensor {} overlap", t.name);
  if (checked_add(t.offset, checked_add(checked_mul(t.experts - 1, t.expert_stride), size)) > end)
    fail<FormatError>("tensor {} lies outside of the file", t.name);
  return t;
}

}  // namespace

Bytes PackedTensor::expert_bytes() const {
  return tile_matrix_bytes(type, rows, cols);
}

PackFile PackFile::open(const std::string& path) {
  return parse(open_file(path));
}

PackFile PackFile::parse(std::unique_ptr<RandomAccessFile> file) {
  const std::string path = file->path();
  const Bytes size = file->size();
  if (size < kDirectBlock + kTrailer) fail<FormatError>("{}: too short for a pack", path);
  std::string magic(kMagic.size(), '\0');
  file->read(0, std::as_writable_bytes(std::span(magic)));
  std::byte trailer[kTrailer];
  file->read(size - kTrailer, trailer);
  if (magic != kMagic || std::memcmp(trailer + 16, kMagic.data(), kMagic.size()) != 0)
    fail<FormatError>("{}: not a pack, or cut off", path);
  std::uint64_t table_size, hash;
  std::memcpy(&table_size, trailer, sizeof(table_size));
  std::memcpy(&hash, trailer + 8, sizeof(hash));
  if (table_size > kMostTable || table_size > size - kDirectBlock - kTrailer)
    fail<FormatError>("{}: its table has an impossible size", path);
  std::string table(table_size, '\0');
  const Bytes end = size - kTrailer - table_size;
  file->read(end, std::as_writable_bytes(std::span(table)));
  if (hash_of(std::as_bytes(std::span(table))) != hash) fail<FormatError>("{}: its table is damaged", path);

  PackFile pack;
  pack.file_ = std::move(file);
  try {
    const auto json = nlohmann::json::parse(table);
    if (json.at("version").get<unsigned>() != kVersion) fail<FormatError>("made by another version of snug");
    pack.model_ = json.at("model").get<std::uint64_t>();
    for (const auto& tensor : json.at("tensors")) {
      pack.tensors_.push_back(read_tensor(tensor, end));
      if (!pack.index_.emplace(pack.tensors_.back().name, pack.tensors_.size() - 1).second)
        fail<FormatError>("tensor {} is there twice", pack.tensors_.back().name);
    }
  } catch (const nlohmann::json::exception&) {
    fail<FormatError>("{}: its table is not what a pack has", path);
  } catch (const Error& e) {
    fail<FormatError>("{}: {}", path, e.what());
  }
  return pack;
}

const PackedTensor* PackFile::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void PackFile::verify() const {
  std::vector<std::byte> buffer(4 * kMiB);
  for (const PackedTensor& t : tensors_) {
    Hash hash;
    for (std::uint32_t e = 0; e < t.experts; ++e)
      for (Bytes at = 0, size = t.expert_bytes(); at < size; at += buffer.size()) {
        const std::span part(buffer.data(), static_cast<std::size_t>(std::min<Bytes>(buffer.size(), size - at)));
        file_->read(t.offset + e * t.expert_stride + at, part);
        hash.add(part);
      }
    if (hash.value() != t.checksum) fail<FormatError>("{}: tensor {} is damaged", file_->path(), t.name);
  }
}

std::string pack_head() {
  std::string head(kDirectBlock, '\0');
  std::copy(kMagic.begin(), kMagic.end(), head.begin());
  return head;
}

std::string pack_tail(std::uint64_t model, const std::vector<PackedTensor>& tensors) {
  nlohmann::ordered_json json = {{"version", kVersion}, {"model", model}, {"tensors", nlohmann::json::array()}};
  for (const PackedTensor& t : tensors) json["tensors"].push_back(to_json(t));
  return seal_pack_table(json.dump());
}

std::string seal_pack_table(std::string table) {
  const std::uint64_t numbers[] = {table.size(), hash_of(std::as_bytes(std::span(table)))};
  return table.append(reinterpret_cast<const char*>(numbers), sizeof(numbers)).append(kMagic);
}

std::string pack_path(const std::string& model) {
  return model + ".snug";
}

}  // namespace snug
