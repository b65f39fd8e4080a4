#include "format/ffn_file.hpp"

#include <cstring>

#include "base/error.hpp"
#include "format/fingerprint.hpp"
#include "format/hash.hpp"

namespace snug {

namespace {

constexpr char kMagic[8] = {'S', 'N', 'U', 'G', 'F', 'F', 'N', 0};
constexpr std::uint32_t kVersion = 2, kMaxWidth = 1 << 20, kMaxLayers = 4096, kMaxNeurons = 1 << 24;

struct Header {
  char magic[8];
  std::uint32_t version, width, rank, layers, gated, unused;
  std::uint64_t fingerprint, size;  ///< of the whole file
  std::uint64_t checksum;           ///< of the header with 0 here, and the table
  std::uint64_t reserved;
};
static_assert(sizeof(Header) == 64);

struct TableRow {
  std::uint32_t neurons, unused;
  std::uint64_t checksum;  ///< of the predictor
};
static_assert(sizeof(TableRow) == 16);

std::uint64_t checksum_of(Header header, std::span<const TableRow> table) {
  header.checksum = 0;
  Hash hash;
  hash.add_value(header);
  hash.add(std::as_bytes(table));
  return hash.value();
}

/// Everything has its place by the shape alone.
struct Places {
  std::vector<Bytes> predictors, bundles;
  Bytes size = 0;
};
Places places_of(const FfnShape& shape) {
  Places p;
  Bytes at = round_up(sizeof(Header) + shape.neurons.size() * sizeof(TableRow), kDirectBlock);
  const auto take = [&](Bytes bytes) {
    const Bytes begin = at;
    at = round_up(checked_add(at, bytes), kDirectBlock);
    return begin;
  };
  for (const std::size_t n : shape.neurons) p.predictors.push_back(take(FfnPredictor::bytes_for(shape, n)));
  for (const std::size_t n : shape.neurons) p.bundles.push_back(take(checked_mul(n, shape.bundle_bytes())));
  p.size = at;
  return p;
}

}  // namespace

std::size_t FfnPredictor::bytes_for(const FfnShape& shape, std::size_t neurons) {
  if (neurons == 0) return 0;
  const std::size_t all = shape.inputs() * neurons;
  return neurons * (sizeof(std::uint32_t) + sizeof(float)) + all * sizeof(float) +
         shape.rank * Int8Row::bytes_for(shape.width) + all * Int8Row::bytes_for(shape.rank);
}

FfnPredictor FfnPredictor::at(const std::byte* data, const FfnShape& shape, std::size_t neurons) {
  const std::byte* weight = data + neurons * sizeof(std::uint32_t);
  const std::byte* spread = weight + neurons * sizeof(float);
  const std::byte* inputs = spread + shape.inputs() * neurons * sizeof(float);
  return {reinterpret_cast<const std::uint32_t*>(data), reinterpret_cast<const float*>(weight),
          reinterpret_cast<const float*>(spread), inputs, inputs + shape.rank * Int8Row::bytes_for(shape.width)};
}

std::string ffn_path(const GgufFile& model) {
  return model.path() + ".ffn";
}

FfnFile FfnFile::open(const std::string& path, const GgufFile& model) {
  return parse(open_file(path, Caching::direct), model_fingerprint(model));
}

FfnFile FfnFile::parse(std::unique_ptr<RandomAccessFile> file, std::uint64_t fingerprint) {
  FfnFile result;
  const std::string& path = file->path();
  Header h{};
  if (file->size() < sizeof h) fail<FormatError>("{}: too short for a file of FFN neurons", path);
  file->read(0, std::as_writable_bytes(std::span(&h, 1)));
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) fail<FormatError>("{}: not a file of FFN neurons", path);
  if (h.version != kVersion)
    fail<FormatError>("{}: version {} where {} is known; make it again with snug sparsify", path, h.version, kVersion);
  const auto in_range = [](std::uint32_t v, std::uint32_t most) { return v > 0 && v <= most; };
  if (!in_range(h.width, kMaxWidth) || h.width % Int8Row::kGroup != 0 || !in_range(h.rank, kMaxWidth) ||
      h.rank % Int8Row::kGroup != 0 || !in_range(h.layers, kMaxLayers) || h.gated > 1)
    fail<FormatError>("{}: the header is damaged", path);
  std::vector<TableRow> table(h.layers);
  if (file->size() < sizeof h + h.layers * sizeof(TableRow)) fail<FormatError>("{}: cut short", path);
  file->read(sizeof h, std::as_writable_bytes(std::span(table)));
  if (checksum_of(h, table) != h.checksum) fail<FormatError>("{}: the header or the table is damaged", path);
  if (h.fingerprint != fingerprint)
    fail<FormatError>("{}: made for another model; make it again with snug sparsify", path);
  result.shape_ = {h.width, h.rank, h.gated == 1, {}};
  for (const TableRow& row : table) {
    if (row.neurons > kMaxNeurons) fail<FormatError>("{}: the table is damaged", path);
    result.shape_.neurons.push_back(row.neurons);
    result.checksums_.push_back(row.checksum);
  }
  Places places = places_of(result.shape_);
  if (h.size != places.size || file->size() != places.size)
    fail<FormatError>("{}: {} bytes where {} are expected: cut short?", path, file->size(), places.size);
  result.predictor_at_ = std::move(places.predictors);
  result.bundles_at_ = std::move(places.bundles);
  result.file_ = std::move(file);
  return result;
}

void FfnFile::read_predictor(std::size_t layer, std::span<std::byte> into) const {
  file_->read(predictor_at_[layer], into);
  bool sound = hash_of(into) == checksums_[layer];
  const std::size_t n = shape_.neurons[layer];
  std::vector<bool> seen(n);
  for (std::size_t i = 0; sound && i < n; ++i) {
    const std::uint32_t number = FfnPredictor::at(into.data(), shape_, n).number[i];
    sound = number < n && !seen[number];
    if (sound) seen[number] = true;
  }
  if (!sound) fail<FormatError>("{}: the predictor of layer {} is damaged", path(), layer);
}

FileRange FfnFile::bundles(std::size_t layer, std::size_t begin, std::size_t end) const {
  const std::size_t each = shape_.bundle_bytes();
  return {file_.get(), bundles_at_[layer] + begin * each, (end - begin) * each};
}

void write_ffn_file(const std::string& path, std::uint64_t fingerprint, const FfnShape& shape,
                    const std::vector<std::vector<std::byte>>& predictors,
                    const std::function<std::vector<std::byte>(std::size_t layer)>& bundles) {
  const Places places = places_of(shape);
  std::vector<TableRow> table;
  for (std::size_t i = 0; i < shape.neurons.size(); ++i) table.push_back({shape.neurons[i], 0, hash_of(predictors[i])});
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version = kVersion;
  h.width = shape.width;
  h.rank = shape.rank;
  h.layers = static_cast<std::uint32_t>(shape.neurons.size());
  h.gated = shape.gated;
  h.fingerprint = fingerprint;
  h.size = places.size;
  h.checksum = checksum_of(h, table);
  remove_abandoned(path);
  write_atomically(path, [&](const auto& append) {
    Bytes at = 0;
    const auto put = [&](std::span<const std::byte> bytes) {
      append(bytes);
      at += bytes.size();
    };
    const auto pad = [&] { put(std::vector<std::byte>(round_up(at, kDirectBlock) - at)); };
    put(std::as_bytes(std::span(&h, 1)));
    put(std::as_bytes(std::span(table)));
    pad();
    for (const auto& predictor : predictors) put(predictor), pad();
    for (std::size_t i = 0; i < shape.neurons.size(); ++i)
      if (shape.neurons[i] > 0) put(bundles(i)), pad();
  });
}

}  // namespace snug
